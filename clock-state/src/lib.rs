//! Asks the Linux kernel how far off the wall clock may be. All time services (timesyncd, chrony, ntpd, ntpd-rs) tell it. The crate has one system call and the only unsafe code of the project: no safe wrapper of that call builds where
//! pointers have 32 bits.

use std::io;

/// The kernel's `struct __kernel_timex`, the same on all architectures: of 64 bits it is `struct timex`, and those of 32 bits
/// have it since their times have 64 bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct KernelTimex {
    /// What to change; zero: nothing.
    modes: u32,
    _pad1: i32,
    offset: i64,
    frequency: i64,
    max_error_us: i64,
    estimated_error_us: i64,
    status: i32,
    _pad2: i32,
    constant: i64,
    precision_us: i64,
    tolerance: i64,
    time_s: i64,
    /// Micro- or nanoseconds, as the status says.
    time_fraction: i64,
    tick_us: i64,
    pps_frequency: i64,
    pps_jitter: i64,
    pps_shift: i32,
    _pad3: i32,
    pps_stability: i64,
    pps_jitter_count: i64,
    pps_calibration_count: i64,
    pps_error_count: i64,
    pps_stability_count: i64,
    tai_offset: i32,
    _pad4: [i32; 11],
}

const _: () = assert!(size_of::<KernelTimex>() == 208, "the kernel writes as many bytes");

/// The greatest error of the wall clock that the kernel believes in, in microseconds. It grows by 500 ppm since the last
/// synchronisation; at 16 s the kernel holds the clock for not synchronised.
///
/// # Errors
/// The kernel does not answer.
pub fn max_error_us() -> io::Result<i64> {
    read().map(|timex| timex.max_error_us)
}

#[cfg(target_os = "linux")]
fn read() -> io::Result<KernelTimex> {
    // clock_adjtime64, with the same number on all architectures of 32 bits but MIPS, which counts from 4000.
    #[cfg(all(target_pointer_width = "32", not(target_arch = "mips")))]
    const CLOCK_ADJTIME: libc::c_long = 405;
    #[cfg(all(target_pointer_width = "32", target_arch = "mips"))]
    const CLOCK_ADJTIME: libc::c_long = 4405;
    #[cfg(target_pointer_width = "64")]
    const CLOCK_ADJTIME: libc::c_long = libc::SYS_clock_adjtime;

    let mut timex = KernelTimex::default();
    // SAFETY: the call takes a clock's number and the address of a `struct __kernel_timex`, of which it reads and writes at
    // most the 208 bytes that `timex` has; all patterns of bits are valid in its fields. With `modes` of zero it changes
    // nothing. The kernel keeps no address.
    #[expect(unsafe_code, reason = "the call has no safe wrapper on 32 bits")]
    let state = unsafe { libc::syscall(CLOCK_ADJTIME, libc::CLOCK_REALTIME, &raw mut timex) };
    if state >= 0 { Ok(timex) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn read() -> io::Result<KernelTimex> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_kernel_s_answer_is_read_at_the_right_places() {
        let timex = read().unwrap();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!((now_s - 2..=now_s).contains(&timex.time_s), "{timex:?}");
        // Constants of the kernel, a tick of 1/100 s that a time service moves by a tenth at most, the offset to TAI.
        assert_eq!(timex.tolerance, 500 << 16, "{timex:?}");
        assert!((9_000..=11_000).contains(&timex.tick_us), "{timex:?}");
        assert!((0..100).contains(&timex.tai_offset), "{timex:?}");
        assert_eq!(timex.modes, 0);
        assert!((0..=16_000_000).contains(&max_error_us().unwrap()));
    }
}
