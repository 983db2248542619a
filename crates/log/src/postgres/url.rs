//! The URL of one or more PostgreSQL servers, as libpq writes it.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// The required kind of server: libpq's `target_session_attrs`, as far as it makes sense for a client that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Any server.
    Any,
    /// Sessions on it can write.
    ReadWrite,
    /// It is not a standby.
    Primary,
}

const ATTRIBUTE: &str = "target_session_attrs";

/// The servers, in order, and the required kind.
#[derive(Debug)]
pub struct ServerUrl {
    /// At least one.
    pub hosts: Vec<PgConnectOptions>,
    pub wanted: Wanted,
}

impl ServerUrl {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?…`.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence after the URL. Contains no part of a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let not_one = || "is not a PostgreSQL URL".to_owned();
        let (scheme, rest) = url.split_once("://").ok_or_else(not_one)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        // Otherwise the start of the password would be taken for host and port, and shown as such.
        if tail.contains(['@', '#']) {
            return Err(
                "contains `/`, `?` or `#` in the user or password, or `@` or `#` after the hosts: write these \
                 characters as `%2F`, `%3F`, `%23` and `%40`"
                    .to_owned(),
            );
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let (ours, others): (Vec<_>, Vec<_>) =
            query.split('&').filter(|part| !part.is_empty()).partition(|part| name(part) == ATTRIBUTE);
        let hosts: Vec<&str> = hosts.split(',').collect();
        let several = hosts.len() > 1;
        let wanted = match ours[..] {
            [] if several => Wanted::ReadWrite,
            [] => Wanted::Any,
            [one] => wanted(one.split_once('=').unwrap_or_default().1)?,
            _ => return Err(format!("names {ATTRIBUTE} more than once")),
        };
        if several && hosts.contains(&"") {
            return Err("has a comma without a host next to it".to_owned());
        }
        let named_again = |part: &&&str| {
            let list = part.contains(',') || part.to_ascii_lowercase().contains("%2c");
            matches!(name(part), "host" | "hostaddr" | "port") && (several || list)
        };
        if let Some(part) = others.iter().find(named_again) {
            let problem = "together with several hosts: write the hosts before the database, as in pg1:5432,pg2:5432";
            return Err(format!("has `{}=` {problem}", name(part)));
        }
        let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
        let hosts = hosts.into_iter().map(|host| {
            // Parsed separately, because a password file may have a separate line for each.
            PgConnectOptions::from_str(&format!("{scheme}://{user}{host}{path}{query}")).map_err(|_| not_one())
        });
        Ok(Self { hosts: hosts.collect::<Result<_, _>>()?, wanted })
    }
}

fn name(part: &str) -> &str {
    part.split_once('=').map_or(part, |(name, _)| name)
}

fn wanted(value: &str) -> Result<Wanted, String> {
    match value {
        "any" => Ok(Wanted::Any),
        "read-write" => Ok(Wanted::ReadWrite),
        "primary" => Ok(Wanted::Primary),
        "read-only" | "standby" | "prefer-standby" => {
            Err(format!("asks for a read-only server ({ATTRIBUTE}={value}): write read-write, primary or any"))
        }
        _ => Err(format!("has an unknown {ATTRIBUTE}: write read-write, primary or any")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(url: &str) -> (Vec<(String, u16)>, Wanted) {
        let parsed = ServerUrl::parse(url).unwrap_or_else(|problem| panic!("{url}: {problem}"));
        let places = parsed.hosts.iter().map(|host| (host.get_host().to_owned(), host.get_port()));
        (places.collect(), parsed.wanted)
    }

    fn at(host: &str, port: u16) -> (String, u16) {
        (host.to_owned(), port)
    }

    #[test]
    fn several_hosts_have_ports_or_none_and_are_read_write() {
        assert_eq!(places("postgres://u@pg1,pg2:5433/db"), (vec![at("pg1", 5432), at("pg2", 5433)], Wanted::ReadWrite));
        assert_eq!(places("postgresql://u:p@pg1:1,pg2:2,pg3:3/db?sslmode=disable").0.len(), 3);
        assert_eq!(places("postgres://u@[::1]:5433,[fe80::1]/db").0, [at("[::1]", 5433), at("[fe80::1]", 5432)]);
        assert_eq!(places("postgres://pg1,pg2").0, [at("pg1", 5432), at("pg2", 5432)]);
    }

    #[test]
    fn what_a_server_must_be_is_taken_out_of_the_query() {
        for (value, wanted) in [("any", Wanted::Any), ("read-write", Wanted::ReadWrite), ("primary", Wanted::Primary)] {
            let url = format!("postgres://u@h/db?sslmode=disable&target_session_attrs={value}&application_name=x");
            assert_eq!(places(&url), (vec![at("h", 5432)], wanted));
        }
        assert_eq!(places("postgres://u@h/db").1, Wanted::Any);
    }

    #[test]
    fn one_host_is_read_as_before() {
        assert_eq!(places("postgres:///db?host=/tmp&port=5433").0.len(), 1);
        assert_eq!(places("postgres://%2Ftmp/db").0.len(), 1);
        assert_eq!(places("postgres://u:p%23%2F%3F%40w,x@h/db").0, [at("h", 5432)]);
        assert_eq!(places("postgres://u:p@w@h/db").0, [at("h", 5432)]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_no_part_of_a_password_is_said() {
        for url in [
            "postgres://u:1s3cret/x@h/db",
            "postgres://u:123#s3cret@h/db",
            "postgres://u:123/s3cret@h/db",
            "postgres://u:123?s3cret@h/db",
            "postgres://u:s3cret@h/db#x",
            "postgres://u:s3cret@h,/db",
            "postgres://u:s3cret@h1,h2/db?host=h3",
            "postgres://u:s3cret@h1:x,h2/db",
            "postgres://u:s3cret@/db?host=h1,h2",
            "postgres://u:s3cret@h/db?target_session_attrs=standby",
            "postgres://u:s3cret@h/db?target_session_attrs=read_write",
            "postgres://u:s3cret@h/db?target_session_attrs=any&target_session_attrs=any",
            "postgres:u:s3cret@h/db",
        ] {
            let problem = ServerUrl::parse(url).expect_err(url);
            assert!(!problem.contains("s3cret") && !problem.contains("123"), "{url}: {problem}");
        }
    }
}
