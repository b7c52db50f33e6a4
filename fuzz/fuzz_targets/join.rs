#![no_main]

tally_fuzz_targets::fuzzer!("join");
