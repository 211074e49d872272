//! The applications that a login may start: the tables `[gui.NAME]` of
//! `cosserver.toml`. Read by the monitor and by `cosadm`.

use std::collections::BTreeMap;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::name::UserName;
use super::tables::{Family, Mistake, command, must_be, texts};
use super::words::quoted;
use crate::fault::Fault;
use crate::sys::pam_files;

/// One key of a `[gui.NAME]` table, for the check of the documents.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its allowed values, and its default.
    pub bounds: &'static str,
    /// Its meaning, in one line.
    pub meaning: &'static str,
}

/// Every key of a `[gui.NAME]` table.
pub const KEYS: &[Key] = &[
    Key {
        name: "command",
        bounds: "a list of words, the first an absolute path; it must be given",
        meaning: "The program and its arguments, run without a shell.",
    },
    Key {
        name: "users",
        bounds: "a list of user names and @groups, or \"*\" for every user but root; default []: no user",
        meaning: "Who may start it.",
    },
    Key {
        name: "arguments",
        bounds: "true or false; default false",
        meaning: "Whether the caller may add arguments.",
    },
    Key {
        name: "remote",
        bounds: "true or false; default false",
        meaning: "Whether remote GUI login may start it: a host of hostinfo asks, without a password.",
    },
    Key {
        name: "environment",
        bounds: "a table of names and texts; default {}",
        meaning: "Variables that it gets besides.",
    },
];

/// The tables `[gui.NAME]`.
const FAMILY: Family = Family {
    header: "gui",
    noun: "application",
    keys: || KEYS.iter().map(|key| key.name).collect(),
};

/// Variables that the daemon sets itself.
const RESERVED: [&str; 6] = ["HOME", "USER", "LOGNAME", "SHELL", "GUI_HOST", "GUI_PORT"];

/// An application of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The users who may start it.
    pub users: Vec<AllowedUser>,
    /// Whether the caller may add arguments.
    pub arguments: bool,
    /// Whether remote GUI login may start it.
    pub remote: bool,
    /// Additional variables for it.
    pub environment: BTreeMap<String, String>,
}

/// One item of `users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedUser {
    /// Every user except root, which must be named.
    Anyone,
    /// This user.
    User(UserName),
    /// Every member of this group.
    Group(UserName),
}

impl AllowedUser {
    fn parse(text: &str) -> Result<Self, Fault> {
        match text.strip_prefix('@') {
            _ if text == "*" => Ok(Self::Anyone),
            Some(group) => UserName::parse(group).map(Self::Group),
            None => UserName::parse(text).map(Self::User),
        }
    }
}

impl fmt::Display for AllowedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("*"),
            Self::User(user) => f.write_str(user.as_str()),
            Self::Group(group) => write!(f, "@{}", group.as_str()),
        }
    }
}

/// All applications, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applications(BTreeMap<String, Application>);

impl Applications {
    /// Returns the application of this name.
    pub fn get(&self, name: &str) -> Option<&Application> {
        self.0.get(name)
    }

    /// Returns all of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Application)> {
        self.0.iter().map(|(name, a)| (name.as_str(), a))
    }

    /// Returns a fault if users cannot log in because PAM has no complete stack for this service.
    /// PAM would then use `other`, which may allow users, so the service's own stack is required.
    pub fn lacks_service(&self) -> Option<Fault> {
        let (name, _) = self.all().next()?;
        let trouble = pam_files::judge().err()?;
        Some(Fault::new(format!(
            "there is a [gui.{name}], and {trouble}; make install puts one there"
        )))
    }

    /// Returns the groups that any application names.
    pub fn groups(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .0
            .values()
            .flat_map(|a| &a.users)
            .filter_map(|who| match who {
                AllowedUser::Group(group) => Some(group.to_string()),
                AllowedUser::Anyone | AllowedUser::User(_) => None,
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Parses the table `gui`, which holds a table for each application.
    pub(super) fn read(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Self {
        let mut all = BTreeMap::new();
        for member in FAMILY.members(table, mistakes) {
            match read_one(member.keys, member.at) {
                Ok(application) => drop(all.insert(member.name.to_owned(), application)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        Self(all)
    }
}

fn read_one(table: &DeTable<'_>, at: usize) -> Result<Application, Mistake> {
    let mut application = Application {
        command: Vec::new(),
        users: Vec::new(),
        arguments: false,
        remote: false,
        environment: BTreeMap::new(),
    };
    for (key, value) in table {
        let name: &str = key.get_ref();
        let wrong = |words: String| (value.span().start, format!("{name}: {words}"));
        let known = KEYS.iter().find(|k| k.name == name);
        let Some(known) = known else {
            let words = FAMILY.unknown_key(name, value.get_ref());
            return Err((key.span().start, words));
        };
        let must_be = || wrong(must_be(known.bounds));
        match name {
            "command" => {
                application.command = command(value).map_err(wrong)?.ok_or_else(must_be)?
            }
            "users" => {
                let everybody = value.get_ref().as_str() == Some("*");
                let everybody = everybody.then(|| vec!["*".to_owned()]);
                let texts = everybody.or_else(|| texts(value)).ok_or_else(must_be)?;
                let users: Result<_, _> = texts.iter().map(|t| AllowedUser::parse(t)).collect();
                application.users = users.map_err(|e| wrong(e.to_string()))?;
            }
            "arguments" => application.arguments = value.get_ref().as_bool().ok_or_else(must_be)?,
            "remote" => application.remote = value.get_ref().as_bool().ok_or_else(must_be)?,
            _ => {
                application.environment = environment(value).map_err(wrong)?.ok_or_else(must_be)?
            }
        }
    }
    if application.command.is_empty() {
        return Err((at, "an application needs a command = [\"/path\", …]".into()));
    }
    Ok(application)
}

fn environment(value: &Spanned<DeValue<'_>>) -> Result<Option<BTreeMap<String, String>>, String> {
    let Some(table) = value.get_ref().as_table() else {
        return Ok(None);
    };
    let mut all = BTreeMap::new();
    for (name, value) in table {
        let name: &str = name.get_ref();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let begins = |c: char| c.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with(begins) {
            return Err(format!("{} is no variable's name", quoted(name)));
        }
        if RESERVED.contains(&name) {
            return Err(format!("{name} is set by the daemon itself"));
        }
        let Some(text) = value.get_ref().as_str().filter(|t| !t.contains('\0')) else {
            return Err(format!("{name} must be a text in quotes"));
        };
        all.insert(name.to_owned(), text.to_owned());
    }
    Ok(Some(all))
}
