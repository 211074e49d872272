# cosserver: `make help` lists what there is to make.
# Works for root and for an ordinary user. Cargo does the building; what it
# needs is looked for, and as root installed, by scripts/need.

PREFIX   = /usr/local
BINDIR   = $(PREFIX)/bin
SBINDIR  = $(PREFIX)/sbin
MANDIR   = $(PREFIX)/share/man
DOCDIR   = $(PREFIX)/share/doc/cosserver
DESTDIR  =
# Where the built programs lie.
PROGRAMS = $${CARGO_TARGET_DIR:-target}/release

MAN1 = cos.1
MAN5 = cosserver.toml.5 hostinfo.5
MAN8 = cosserver.8 cosadm.8
PAGES = README.md NEWS SECURITY.md LICENSE docs/PROTOCOL.md docs/DESIGN.md docs/THREATS.md docs/LESSONS.md
EXAMPLES = etc/services etc/inetd.conf etc/xinetd etc/hostinfo

# Copies a text, FROM TO, in which our programs have the folders that they are
# installed in; the commands' PATH, which it may name as well, is another matter.
COPY = copy() { rm -f "$$2" && sed -e 's|/usr/local/sbin/cos|$(SBINDIR)/cos|g' -e 's|/usr/local/bin/cos|$(BINDIR)/cos|g' "$$1" >"$$2" && chmod 644 "$$2"; }; copy

.PHONY: all help build demo demo-user test soak lint check-docs fuzz bench install uninstall clean

all: build

help:
	@echo 'make             build the three programs (target/release)'
	@echo 'make demo        build, then show them at work on this machine'
	@echo 'make test        all tests; as root also those that need root'
	@echo 'make soak        the tests with their long counts'
	@echo 'make bench       measure, beside the peers that are installed (root)'
	@echo 'make fuzz        every fuzz target, SECONDS=60 each'
	@echo 'make lint        format, clippy, shell scripts, man pages'
	@echo 'make check-docs  do documents and code agree?'
	@echo 'make install     into DESTDIR=, PREFIX=/usr/local; uninstall takes it away'
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
	@COS_LONG=1 scripts/test

lint:
	@scripts/lint

check-docs:
	@scripts/need test
	scripts/cargo test --test documents --test manual --test house

fuzz:
	@scripts/fuzz $(SECONDS)

bench: build
	@benches/bench.py $(BENCH)

# Nothing is built here, so that root may install what another user built.
# Files of the administrator, in /etc/cosserver, are made by `cosadm init` and
# never touched by this.
install:
	@test -x "$(PROGRAMS)/cosserver" || { echo 'install: nothing built yet: run make first' >&2; exit 1; }
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(DOCDIR)/examples" \
		"$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(MANDIR)/man5" "$(DESTDIR)$(MANDIR)/man8"
	install -m 755 "$(PROGRAMS)/cos" "$(DESTDIR)$(BINDIR)/cos"
	ln -sf cos "$(DESTDIR)$(BINDIR)/cosrsh"
	install -m 755 "$(PROGRAMS)/cosserver" "$(PROGRAMS)/cosadm" "$(DESTDIR)$(SBINDIR)"
	for page in $(MAN1); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man1/$$page" || exit 1; done
	ln -sf cos.1 "$(DESTDIR)$(MANDIR)/man1/cosrsh.1"
	for page in $(MAN5); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man5/$$page" || exit 1; done
	for page in $(MAN8); do $(COPY) docs/man/$$page "$(DESTDIR)$(MANDIR)/man8/$$page" || exit 1; done
	install -m 644 $(PAGES) "$(DESTDIR)$(DOCDIR)"
	for file in $(EXAMPLES); do $(COPY) $$file "$(DESTDIR)$(DOCDIR)/examples/$${file##*/}" || exit 1; done
	@test -n "$(DESTDIR)" || getent passwd _cosserver >/dev/null || \
		echo 'install: make the account that the network processes run as:' \
		'useradd --system --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin _cosserver'

uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/cos" "$(DESTDIR)$(BINDIR)/cosrsh" \
		"$(DESTDIR)$(SBINDIR)/cosserver" "$(DESTDIR)$(SBINDIR)/cosadm" \
		"$(DESTDIR)$(MANDIR)/man1/cosrsh.1"
	for page in $(MAN1); do rm -f "$(DESTDIR)$(MANDIR)/man1/$$page"; done
	for page in $(MAN5); do rm -f "$(DESTDIR)$(MANDIR)/man5/$$page"; done
	for page in $(MAN8); do rm -f "$(DESTDIR)$(MANDIR)/man8/$$page"; done
	for page in $(PAGES); do rm -f "$(DESTDIR)$(DOCDIR)/$${page##*/}"; done
	for file in $(EXAMPLES); do rm -f "$(DESTDIR)$(DOCDIR)/examples/$${file##*/}"; done
	-rmdir "$(DESTDIR)$(DOCDIR)/examples" "$(DESTDIR)$(DOCDIR)"

clean:
	scripts/cargo clean
	rm -rf fuzz/target
