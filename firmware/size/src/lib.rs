//! What the measured programs have in common: a start that is never left, and an end that says nothing.
#![no_std]

use core::panic::PanicInfo;

/// Firmware resets; what a panic would say is not kept.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The program's entry, and a symbol as large as each named state.
///
/// Each function of `functions` is kept as a whole, as a driver in another crate would call it: taking its address
/// keeps it from being specialised for what the program happens to pass.
#[macro_export]
macro_rules! measure {
    (states: { $($symbol:ident: $state:ty),* $(,)? } functions: { $($function:expr),* $(,)? }) => {
        $(
            #[unsafe(no_mangle)]
            static $symbol: [u8; core::mem::size_of::<$state>()] = [0; core::mem::size_of::<$state>()];
        )*

        #[unsafe(no_mangle)]
        pub extern "C" fn _start() -> ! {
            $(core::hint::black_box(&$symbol);)*
            $(core::hint::black_box($function as *const ());)*
            loop {}
        }
    };
}
