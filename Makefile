# cosserver: `make help` lists what there is to make.
# Works for root and for an ordinary user. Cargo does the building; what it
# needs is looked for, and as root installed, by scripts/need.

PREFIX   = /usr/local
BINDIR   = $(PREFIX)/bin
SBINDIR  = $(PREFIX)/sbin
MANDIR   = $(PREFIX)/share/man
DOCDIR   = $(PREFIX)/share/doc/cosserver
DESTDIR  =
# Whose files go where this machine's init looks for them, and whose PAM file:
# sysv, systemd, openrc, bsd, runit or none; debian, redhat, plain or none.
INIT     =
PAM      =
# SIGNER=setuid installs cos-sign too, set-uid root: for a host that runs no daemon
# and whose ordinary users are to ask other hosts. SIGNER=none takes it away. Without
# either, one that is there becomes this version's, set-uid only if it was.
SIGNER   =
# Where the built programs lie.
PROGRAMS = $${CARGO_TARGET_DIR:-target}/release

MAN1 = cos.1
MAN5 = cosserver.toml.5 hostinfo.5
MAN7 = cosserver-protocol.7
MAN8 = cosserver.8 cosadm.8
PAGES = README.md NEWS SECURITY.md LICENSE docs/PROTOCOL.md docs/DESIGN.md docs/THREATS.md docs/LESSONS.md

# Copies a text, FROM TO, in which our files have the folders that they are
# installed in; the commands' PATH, which it may name as well, is another matter.
COPY = copy() { rm -f "$$2" && sed -e 's|/usr/local/sbin/cos|$(SBINDIR)/cos|g' -e 's|/usr/local/bin/cos|$(BINDIR)/cos|g' \
	-e 's|/usr/local/share/doc/cosserver|$(DOCDIR)|g' -e 's|](docs/|](|g' -e 's|/usr/local/lib/cosserver|$(PREFIX)/lib/cosserver|g' \
	"$$1" >"$$2" && chmod 644 "$$2"; }; copy

# cos-sign as SIGNER has it.
SIGN = sign="$(DESTDIR)$(BINDIR)/cos-sign"; case "$(SIGNER)" in \
	setuid) install -m 4755 "$(PROGRAMS)/cos-sign" "$$sign" ;; \
	none) rm -f "$$sign" ;; \
	'') test ! -e "$$sign" || { mode=755; test ! -u "$$sign" || mode=4755; \
		install -m $$mode "$(PROGRAMS)/cos-sign" "$$sign"; } ;; esac

# The rest of installing: init, PAM, the account, examples.
PLACE = DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" BINDIR="$(BINDIR)" SBINDIR="$(SBINDIR)" \
	DOCDIR="$(DOCDIR)" INIT="$(INIT)" PAM="$(PAM)" SIGNER="$(SIGNER)" scripts/place

.PHONY: all help build demo demo-user test soak lint check-docs fuzz bench distance distances programs install uninstall clean

all: build

help:
	@echo 'make             build the five programs (target/release)'
	@echo 'make demo        build, then show them at work on this machine'
	@echo 'make test        the tests; as root also those that need root'
	@echo 'make soak        the same with long counts, and races, replays, times and real programs'
	@echo 'make bench       measure, beside the peers that are installed (root)'
	@echo 'make distance    measure a stream over a long line, beside plain TCP (root)'
	@echo 'make distances   measure several such lines, beside OpenSSH too, and draw the chart (root)'
	@echo 'make programs    measure real programs beside ssh (root)'
	@echo 'make fuzz        every fuzz target, SECONDS=60 each'
	@echo 'make lint        format, clippy, shell scripts, man pages'
	@echo 'make check-docs  do documents and code agree?'
	@echo 'make install     into DESTDIR=, PREFIX=/usr/local, for INIT=sysv|systemd|openrc|bsd|runit|none'
	@echo '                 and with SIGNER=setuid also cos-sign, set-uid root; SIGNER=none takes it away'
	@echo 'make uninstall   take that away; what was changed is kept'
	@echo 'make clean       remove what was built'

build:
	@scripts/need build
	scripts/cargo build --release --bins

# Who cannot run it hears so before the long build.
demo: demo-user build
	@demo/demo.sh

demo-user:
	@demo/demo.sh --check

test:
	@scripts/test

soak:
	@COS_LONG=1 scripts/test all

lint:
	@scripts/lint

check-docs:
	@scripts/need test
	scripts/cargo test --test lints

fuzz:
	@scripts/fuzz $(SECONDS)

# The figures are kept for the chart in README, which a run on another machine replaces.
FIGURES = $${CARGO_TARGET_DIR:-target}/bench.json

bench: build
	@rm -f "$(FIGURES)"
	@benches/bench.py --json "$(FIGURES)" $(BENCH)
	@benches/login.py
	@benches/doors.py
	@benches/programs.py --only sftp --rounds 10
	@benches/figures.py "$(FIGURES)"

DISTANCES = $${CARGO_TARGET_DIR:-target}/distance.json

distance: build
	@benches/distance.py $(DISTANCE)

# Several lines, with OpenSSH beside, for the chart in README.
distances: build
	@benches/distance.py --ssh --round-trips 1,5,20,40,80,160 --ways down,up --json "$(DISTANCES)" $(DISTANCE)
	@benches/figures.py "$(DISTANCES)"

# For example make programs BENCH="--rounds 3 --only rsync,git".
programs: build
	@benches/programs.py $(BENCH)

# Nothing is built here, so that root may install what another user built.
# Files of the administrator, in /etc/cosserver, are made by `cosadm init` and
# never touched by this; those for init and PAM are kept where they were changed.
install:
	@test -x "$(PROGRAMS)/cosserver" || { echo 'install: nothing built yet: run make first' >&2; exit 1; }
	@$(PLACE) check
	@install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(DOCDIR)" \
		"$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(MANDIR)/man5" "$(DESTDIR)$(MANDIR)/man7" "$(DESTDIR)$(MANDIR)/man8"
	@install -m 755 "$(PROGRAMS)/cos" "$(DESTDIR)$(BINDIR)/cos"
	@ln -sf cos "$(DESTDIR)$(BINDIR)/cosrsh"
	@install -m 755 "$(PROGRAMS)/cosserver" "$(PROGRAMS)/cosserver-login" "$(PROGRAMS)/cosadm" "$(DESTDIR)$(SBINDIR)"
	@$(SIGN)
	@page="$(DESTDIR)$(MANDIR)/man1/cos-sign.1"; if test -e "$(DESTDIR)$(BINDIR)/cos-sign"; \
		then $(COPY) docs/man/cos-sign.1 "$$page"; else rm -f "$$page"; fi
	@for page in $(MAN1); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man1/$$page" || exit 1; done
	@ln -sf cos.1 "$(DESTDIR)$(MANDIR)/man1/cosrsh.1"
	@for page in $(MAN5); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man5/$$page" || exit 1; done
	@for page in $(MAN7); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man7/$$page" || exit 1; done
	@for page in $(MAN8); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man8/$$page" || exit 1; done
	@for page in $(PAGES); do $(COPY) $$page "$(DESTDIR)$(DOCDIR)/$${page##*/}" || exit 1; done
	@echo 'install: programs in $(DESTDIR)$(BINDIR) and $(DESTDIR)$(SBINDIR), manual in $(DESTDIR)$(MANDIR)'
	@$(PLACE) install

uninstall:
	@rm -f "$(DESTDIR)$(BINDIR)/cos" "$(DESTDIR)$(BINDIR)/cosrsh" "$(DESTDIR)$(BINDIR)/cos-sign" \
		"$(DESTDIR)$(SBINDIR)/cosserver" "$(DESTDIR)$(SBINDIR)/cosserver-login" "$(DESTDIR)$(SBINDIR)/cosadm" \
		"$(DESTDIR)$(MANDIR)/man1/cosrsh.1" "$(DESTDIR)$(MANDIR)/man1/cos-sign.1"
	@for page in $(MAN1); do rm -f "$(DESTDIR)$(MANDIR)/man1/$$page"; done
	@for page in $(MAN5); do rm -f "$(DESTDIR)$(MANDIR)/man5/$$page"; done
	@for page in $(MAN7); do rm -f "$(DESTDIR)$(MANDIR)/man7/$$page"; done
	@for page in $(MAN8); do rm -f "$(DESTDIR)$(MANDIR)/man8/$$page"; done
	@for page in $(PAGES); do rm -f "$(DESTDIR)$(DOCDIR)/$${page##*/}"; done
	@$(PLACE) uninstall
	@rmdir "$(DESTDIR)$(DOCDIR)" 2>/dev/null || :
	@echo 'uninstall: programs, manual and examples are gone; README.md says what takes away the rest'

clean:
	scripts/cargo clean
	rm -rf fuzz/target
