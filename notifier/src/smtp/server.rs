//! Where a mail server is, and how the way there is protected.

use std::{fmt, str::FromStr};

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// By STARTTLS, which the server must offer.
    StartTls,
    /// From the first byte on.
    Tls,
}

/// A mail server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Encryption.
    pub security: Security,
}

impl Server {
    /// Is it on this machine, by its name?
    #[must_use]
    pub fn is_local(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Server {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{why}: write smtp://HOST:25, smtp+starttls://HOST:587 or smtps://HOST:465")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no URL"))?;
        let (security, port) = match scheme {
            "smtp" => (Security::None, 25),
            "smtp+starttls" => (Security::StartTls, 587),
            "smtps" => (Security::Tls, 465),
            _ => return Err(wrong("another scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("user and password belong to --smtp-user and --smtp-password-file".into());
        }
        // [::1]:25
        let (host, given) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match given {
            Some(given) => given.parse().map_err(|_| wrong("no port"))?,
            None => port,
        };
        if host.is_empty() || host.contains(['/', '?', ' ']) || port == 0 {
            return Err(wrong("no host"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            security,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        use Security::{None, StartTls, Tls};
        let cases = [
            ("smtp://localhost", "localhost", 25, None),
            ("smtp://mail:1025/", "mail", 1025, None),
            (
                "smtp+starttls://mail.example.com",
                "mail.example.com",
                587,
                StartTls,
            ),
            ("smtps://mail.example.com", "mail.example.com", 465, Tls),
            ("smtps://[::1]:4650", "::1", 4650, Tls),
            ("smtp://[::1]", "::1", 25, None),
        ];
        for (text, host, port, security) in cases {
            let server: Server = text.parse().unwrap();
            let expected = Server {
                host: host.to_owned(),
                port,
                security,
            };
            assert_eq!(server, expected, "{text}");
        }
        for bad in [
            "",
            "mail",
            "mail:25",
            "http://mail",
            "smtp://",
            "smtp://mail:x",
            "smtp://mail:0",
            "smtp://me:secret@mail",
            "smtp://mail/path",
        ] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }
}
