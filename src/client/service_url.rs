//! The URL of a named service, `NAME://[USER@]HOST[:PORT][/ARG]...[?ARG[&ARG]...]`, as seed 003 writes
//! it. Pure: runs in the client while it reads its command line.

use super::values::Destination;
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::protocol::name::is_service_name;

/// A named service on a host, with the caller's arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceUrl {
    /// The service's name.
    pub(super) name: String,
    /// The host.
    pub(super) host: Destination,
    /// The arguments: the parts of the path, then those of the query.
    pub(super) args: Vec<Vec<u8>>,
}

impl ServiceUrl {
    /// Parses a URL. In an argument, `%` and two hexadecimal digits are a byte, and quotes around
    /// it are removed.
    ///
    /// # Errors
    /// It is no URL, or its service, its host or an argument is invalid.
    pub(super) fn parse(url: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            let form = "a service's URL: NAME://[USER@]HOST[:PORT][/ARG]...[?ARG[&ARG]...]";
            Fault::new(format!("{}: {why}", quoted(url))).with_remedy(form)
        };
        let (name, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("it has no ://"))?;
        if !is_service_name(name.as_bytes()) {
            return Err(wrong("no service can have that name"));
        }
        if rest.contains('#') {
            return Err(wrong("it has a #; write it as %23"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let host = Destination::parse(host, "URL")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts = path.split('/').skip(1).filter(|part| !part.is_empty());
        let queries = query.split('&').filter(|part| !part.is_empty());
        let args = parts.chain(queries).map(|part| {
            if part == "\"" || part.starts_with('"') != part.ends_with('"') {
                let why = "a quote has no pair; write / and & in an argument as %2F and %26";
                return Err(wrong(why));
            }
            let bytes = decoded(part).ok_or_else(|| wrong("% needs two hexadecimal digits"))?;
            match bytes.contains(&0) {
                true => Err(wrong("an argument cannot have a NUL byte")),
                false => Ok(bytes),
            }
        });
        Ok(Self {
            name: name.to_owned(),
            host,
            args: args.collect::<Result<_, _>>()?,
        })
    }
}

/// Returns the bytes of a part of a URL.
fn decoded(part: &str) -> Option<Vec<u8>> {
    let quotes = part.strip_prefix('"').and_then(|p| p.strip_suffix('"'));
    let mut bytes = quotes.unwrap_or(part).bytes();
    let mut all = Vec::new();
    while let Some(byte) = bytes.next() {
        let digit = |b: u8| char::from(b).to_digit(16);
        all.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> Vec<String> {
        let args = ServiceUrl::parse(url).unwrap().args;
        args.into_iter()
            .map(|a| String::from_utf8(a).unwrap())
            .collect()
    }

    #[test]
    fn a_url_has_a_service_a_host_and_arguments() {
        let url = ServiceUrl::parse("report://alice@hostb:9102/daily?month=11&x%26y").unwrap();
        assert_eq!(
            (url.name.as_str(), url.host.to_string().as_str()),
            ("report", "alice@hostb:9102")
        );
        assert_eq!(
            args("report://alice@hostb:9102/daily?month=11&x%26y"),
            ["daily", "month=11", "x&y"]
        );
        assert!(args("uptime://hostb").is_empty());
        assert!(args("uptime://hostb/").is_empty());
        assert_eq!(args("x://[::1]:1/a//b/?c"), ["a", "b", "c"]);
        // As seed 003 writes it.
        let sql = r#"sql://aserver/DBName?"SELECT * FROM tblUsers;"&"opt=lock""#;
        assert_eq!(args(sql), ["DBName", "SELECT * FROM tblUsers;", "opt=lock"]);
    }

    #[test]
    fn other_texts_are_no_url() {
        for (text, why) in [
            ("hostb", "it has no ://"),
            ("x://hostb/\"a/b\"", "a quote has no pair"),
            ("x://hostb?\"a&b\"", "a quote has no pair"),
            ("-x://hostb", "no service can have that name"),
            ("a/b://hostb", "no service can have that name"),
            ("x://", "the host has no name"),
            ("x://hostb:0", "not a port"),
            ("x://hostb/%4", "two hexadecimal digits"),
            ("x://hostb/%00", "NUL"),
            ("x://hostb/a#b", "%23"),
        ] {
            let told = ServiceUrl::parse(text).unwrap_err().to_string();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
