//! The witness alone, as a microcontroller would have it.
#![no_std]
#![no_main]

use tally_core::raft::{WITNESS_RECORD_BYTES, Witness, WitnessRecord};

type Alone = Witness;

size::measure! {
    states: { WITNESS_STATE: Alone, WITNESS_RECORD: [u8; WITNESS_RECORD_BYTES] }
    functions: {
        WitnessRecord::encode,
        WitnessRecord::decode,
        Alone::new,
        Alone::record,
        Alone::handle,
        Alone::stored,
        Alone::not_stored,
    }
}
