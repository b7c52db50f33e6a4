//! Only the leader publishes: once the broker has accepted a message of a leader, it accepts none of an earlier one.

#[derive(Debug, Default)]
pub(crate) struct Publishers {
    term: u64,
}

impl Publishers {
    /// The broker has taken something that a box sent in this term.
    pub(crate) fn taken(&mut self, term: u64) {
        let last = self.term;
        assert!(term >= last, "publishers: the broker took something of term {term}, and of {last} before");
        self.term = term;
    }
}
