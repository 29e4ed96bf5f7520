//! The body of a message on the wire: it ends at a line that is a single dot, and a line that begins with a dot
//! has one more in front (RFC 5321, section 4.5.2).

/// Collects the lines of a `DATA` command.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    /// Takes a line with its line end. Returns whether it was the last, which is not part of the message.
    ///
    /// Only CR LF ends a line: a dot between bare LFs is text, or a message could smuggle in a second one.
    pub(super) fn take(&mut self, line: &[u8]) -> bool {
        let at_line_start = self.0.is_empty() || self.0.ends_with(b"\r\n");
        if !at_line_start {
            self.0.extend_from_slice(line);
            return false;
        }
        if line == b".\r\n" {
            return true;
        }
        self.0
            .extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        false
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds what a reader that splits after each LF would give.
    fn read(wire: &[u8]) -> (Vec<u8>, bool) {
        let mut body = Body::default();
        let ended = wire
            .split_inclusive(|byte| *byte == b'\n')
            .any(|line| body.take(line));
        (body.into_bytes(), ended)
    }

    #[test]
    fn dots_are_unstuffed_and_one_alone_ends_the_message() {
        let cases: [(&[u8], &[u8], bool); 8] = [
            (b"a\r\n.\r\n", b"a\r\n", true),
            (b".\r\n", b"", true),
            (b"..\r\n.\r\n", b".\r\n", true),
            (b"...a\r\n.\r\n", b"..a\r\n", true),
            (b".a\r\n.\r\n", b"a\r\n", true),
            (b"a.\r\n.\r\n", b"a.\r\n", true),
            (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n", true),
            (b"a\r\n.\nb\r\n", b"a\r\n\nb\r\n", false),
        ];
        for (wire, message, ended) in cases {
            assert_eq!(
                read(wire),
                (message.to_vec(), ended),
                "{:?}",
                String::from_utf8_lossy(wire)
            );
        }
    }
}
