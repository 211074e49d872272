//! The hardware addresses of hosts on the same link: the kernel's table of neighbours (rtnetlink(7)).
//! Used by the monitor, for access rules that name one.

use std::io;
use std::net::IpAddr;

/// Returns the hardware address of a host on the same link; `None`: it is not known, or the host is
/// not on the same link. A link-local IPv6 address may be another host's on each link: it is not
/// known.
///
/// # Errors
/// The system does not tell.
#[cfg(target_os = "linux")]
pub fn hardware_of(host: IpAddr) -> io::Result<Option<[u8; 6]>> {
    match host {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Ok(None),
        IpAddr::V4(_) | IpAddr::V6(_) => linux::ask(host),
    }
}

/// Returns `None`: only Linux is asked.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn hardware_of(_: IpAddr) -> io::Result<Option<[u8; 6]>> {
    Ok(None)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::IpAddr;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
    };

    /// `RTM_NEWNEIGH`, an entry; `RTM_GETNEIGH`, the question.
    const ENTRY: u16 = 28;
    const QUESTION: u16 = 30;
    /// `NLMSG_ERROR` and `NLMSG_DONE`.
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    /// `NLM_F_REQUEST` and `NLM_F_DUMP`.
    const FLAGS: u16 = 0x301;
    /// `NDA_DST` and `NDA_LLADDR`.
    const ADDRESS: u16 = 1;
    const HARDWARE: u16 = 2;
    /// Lengths of a message's header and of an entry's own, bytes.
    const HEADER: usize = 16;
    const OWN: usize = 12;
    /// Most messages that are read: a table of some ten thousand neighbours.
    const MOST: usize = 1_000;

    pub(super) fn ask(host: IpAddr) -> io::Result<Option<[u8; 6]>> {
        let family = match host {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let protocol = SockProtocol::NetlinkRoute;
        let netlink = socket(AddressFamily::Netlink, kind, flags, protocol)?;
        let length = u32::try_from(HEADER + OWN).unwrap_or(0);
        let mut question = Vec::new();
        question.extend(length.to_ne_bytes());
        question.extend(QUESTION.to_ne_bytes());
        question.extend(FLAGS.to_ne_bytes());
        // Sequence number and sender; then the family, and an entry without more.
        question.extend([0; 8]);
        question.push(u8::try_from(family).unwrap_or(0));
        question.extend([0; OWN - 1]);
        send(netlink.as_raw_fd(), &question, MsgFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        for _ in 0..MOST {
            // The kernel has made the answer, or the part that fits its buffer, by now.
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
            let answer = buffer.get(..length).unwrap_or_default();
            if let Some(found) = read(answer, host)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Reads a part of the answer. `None`: the next part is to be read.
    pub(super) fn read(mut rest: &[u8], host: IpAddr) -> io::Result<Option<Option<[u8; 6]>>> {
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                ENTRY => {
                    if let Some(hardware) = entry(body, host) {
                        return Ok(Some(Some(hardware)));
                    }
                }
                DONE => return Ok(Some(None)),
                ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => {}
            }
            rest = next;
        }
        Ok(None)
    }

    /// Returns the kind and the body of the first message, and what follows it.
    fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        Some((kind, body, after(bytes, length)))
    }

    /// Returns what follows a part of this length, which is padded to a multiple of 4.
    fn after(bytes: &[u8], length: usize) -> &[u8] {
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
    }

    /// Returns the hardware address of an entry, if it is this host's.
    fn entry(body: &[u8], host: IpAddr) -> Option<[u8; 6]> {
        let mut rest = body.get(OWN..)?;
        let (mut is_it, mut hardware) = (false, None);
        while let Some(head) = rest.first_chunk::<4>() {
            let [a, b, c, d] = *head;
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = rest.get(4..length)?;
            match u16::from_ne_bytes([c, d]) {
                ADDRESS => {
                    is_it = match host {
                        IpAddr::V4(v4) => value == v4.octets(),
                        IpAddr::V6(v6) => value == v6.octets(),
                    };
                }
                HARDWARE => hardware = value.try_into().ok(),
                _ => {}
            }
            rest = after(rest, length);
        }
        hardware.filter(|_| is_it)
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it should be"
)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_no_neighbour_has_no_hardware_address() {
        for host in ["198.51.100.77", "2001:db8::77", "127.0.0.1"] {
            assert_eq!(hardware_of(host.parse().unwrap()).unwrap(), None, "{host}");
        }
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut all = length.to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend([0; 10]);
        all.extend(body);
        all
    }

    /// An entry as the kernel sends it.
    fn entry(last: u8, hardware: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 12];
        body.extend(8_u16.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend([192, 0, 2, last]);
        body.extend(u16::try_from(4 + hardware.len()).unwrap().to_ne_bytes());
        body.extend(2_u16.to_ne_bytes());
        body.extend(hardware);
        body.resize(body.len().next_multiple_of(4), 0);
        message(28, &body)
    }

    #[test]
    fn entries_are_read() {
        let host = "192.0.2.9".parse().unwrap();
        let read = |parts: &[Vec<u8>]| linux::read(&parts.concat(), host);
        let (other, its) = (entry(8, &[1; 6]), entry(9, &[2, 0, 0x5e, 0x10, 0, 1]));
        let found = read(&[other.clone(), its.clone()]).unwrap();
        assert_eq!(found, Some(Some([2, 0, 0x5e, 0x10, 0, 1])));
        assert_eq!(
            read(std::slice::from_ref(&other)).unwrap(),
            None,
            "there is more"
        );
        assert_eq!(
            read(&[other, message(3, &[0; 4])]).unwrap(),
            Some(None),
            "the end"
        );
        // Not Ethernet; cut short; refused.
        let end = message(3, &[]);
        assert_eq!(read(&[entry(9, &[1; 8]), end]).unwrap(), Some(None));
        assert_eq!(read(&[its[..30].to_vec()]).unwrap(), None);
        assert!(read(&[message(2, &[0; 4])]).is_err());
    }

    /// As far as this machine has neighbours.
    #[test]
    fn a_neighbour_has_the_hardware_address_that_arp_shows() {
        let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // Complete entries only.
            if let [host, _, "0x2", hardware, ..] = fields.as_slice() {
                let found = hardware_of(host.parse().unwrap()).unwrap();
                let found = found.map(|a| a.map(|b| format!("{b:02x}")).join(":"));
                assert_eq!(found.as_deref(), Some(*hardware), "{host}");
            }
        }
    }
}
