//! This boot's ID, by which a file that must not survive a reboot is recognized.

/// Length of a boot ID, bytes.
pub const LENGTH: usize = 16;

/// Returns this boot's ID, or zeros if the system has none.
pub fn id() -> [u8; LENGTH] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    crate::secret::from_hex(&digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn boot_id_is_known_and_stays() {
        assert_ne!(super::id(), [0; 16]);
        assert_eq!(super::id(), super::id());
    }
}
