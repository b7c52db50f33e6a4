//! Deliberate bugs, which tests switch on to show that the simulation detects them. Shipped builds contain none of them:
//! without the feature `simulation` the check is constant at compile time.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident,)*) => {
        /// A bug that a test can switch on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)*
        }

        /// All of them.
        pub const BUGS: &[Bug] = &[$(Bug::$bug,)*];
    };
}

bugs! {
    /// Keeps nothing at an orderly stop of what it could not commit.
    SavesNothing,
    /// The kind of a signed add goes by what the box knows that takes it in.
    KindByReceiver,
    /// What a box counted under a clock that is ahead is refused.
    AheadIsRefused,
    /// Of a sample's simultaneous values the largest is the last, and all of a window are simultaneous.
    LargestIsLast,
    /// An opening of its epoch that it sees again addresses whatever it has in flight anew.
    OpenedAddressesAnew,
    /// A group is called durable without a sync.
    SkipsSync,
    /// A new segment is used without a sync of its name.
    SkipsNameSync,
    /// After a failed write or a kill, what was found is taken for durable.
    TrustsCache,
    /// A group that the disk refused is called durable.
    CallsFailedWritten,
    /// A group that the disk does not answer about is called durable.
    CallsHungWritten,
    /// Reads are answered before a quorum has confirmed the leader.
    ReadsWithoutRound,
    /// The file of saved batches is removed when its first batch is judged.
    RemovesFileEarly,
    /// The file that an orderly stop has written is removed when what was in it before is settled.
    RemovesFileWhileSaving,
    /// Saved batches go on under the number after theirs.
    RenumbersSaved,
    /// What a saved file says was sent is sent again under a new epoch, as if it was not.
    SavedUnderNewEpoch,
    /// A snapshot of the site leaves out the windows that are open beside the rows' own.
    SnapshotForgetsParked,
    /// An add that is in a batch already is called taken back.
    WithdrawsTooLate,
    /// Entries are applied before they are committed.
    AppliesUncommitted,
    /// An idempotency key is not looked up.
    ForgetsKeys,
    /// An orderly stop does not wait for the batch that is in flight.
    LeavesInFlight,
    /// Adds are answered as added when their batch is sent.
    AnswersWhenSent,
    /// A follower mixes up the bytes of two entries that came together.
    MixesPayloads,
    /// A number of a summary is given twice.
    NumbersAnew,
    /// Numbers are recorded as delivered when they are sent.
    DeliversUnacknowledged,
    /// Who seems to lead publishes, without asking whether it still does.
    PublishesUnfenced,
    /// A number that the broker refuses is settled, and held by nobody.
    DropsRefused,
    /// Each summary brings its own total along, though a later one was published.
    RepeatsTotals,
    /// A new leader does not look at what is held.
    ForgetsHeld,
    /// What the broker answers on an earlier connection counts for the present one.
    CountsOldAnswers,
    /// A message over which the connection broke once is taken for refused.
    SetsAsideEarly,
    /// A refused number is passed over before the site holds it.
    PassesUnheld,
    /// A held number is let go of when it is sent again.
    ReleasesWhenSent,
    /// What is held is read when a connection begins, and not again while that lasts.
    ReadsHeldOnce,
    /// What the broker takes in one format counts for the others as well.
    MixesFormats,
    /// A number is settled when the broker has it in one format.
    SettlesByOneFormat,
    /// CBOR has negative numbers as their magnitudes, which stand for the numbers before them.
    NegativesOffByOne,
    /// A box that has subscribed relies on the broker to keep that over connections.
    TrustsSession,
    /// A report of an epoch of which none was applied before the epoch was closed is taken for applied.
    NoneIsUnknown,
    /// A box finds no room among the sources when these are as many as may be.
    BoxesNotExempt,
    /// Names that the site does not know keep their places, and names that it knows need one as well.
    JunkStays,
    /// A box makes increases of a meter's readings by itself, from the first that it reads in each of its lives.
    MetersByProcess,
    /// A new leader goes on with site time from what is applied, whatever else its log says.
    TimeFromApplied,
    /// When an operator sets site time back, windows stay closed up to where it was.
    StaysClosed,
    /// When site time jumps ahead, what meters were heard to show stays where it was.
    MetersMissJumps,
    /// A leader changes the members also if those who vote afterwards cannot be reached.
    IgnoresMajority,
    /// The entry of a joint configuration does not say who votes in the half that is left.
    ForgetsOutgoing,
    /// The entry of a configuration has nothing in it.
    WritesNoMembers,
    /// A new leader goes by wishes that may not be the latest.
    WishesTooEarly,
    /// Who is removed is let go of before the configuration is without it.
    LetsGoAtOnce,
    /// Who was removed is still let in.
    KeepsRemoved,
    /// A box that begins with a snapshot goes by the members that the site was founded with.
    GoesByFounders,
    /// A box that was away is not told who came meanwhile.
    TellsNobody,
    /// A change that comes a second time is made again.
    RepeatsChanges,
    /// A removal drops the open windows of its series.
    RemovalDropsWindows,
    /// A late amount by number counts for the series that has the number by now.
    CountsForSuccessor,
    /// A new leader does not clear the totals of removed series.
    ClearsNothing,
    /// Numbers go on from where the site stands, whatever the broker knows.
    ReusesNumbers,
    /// A witness answers before its record is on the disk.
    WitnessAnswersFirst,
    /// A witness takes a record for durable whose name is not synced.
    WitnessSkipsNameSync,
    /// A witness answers although its disk has refused the record.
    WitnessTrustsFailure,
    /// A leader does not tell the witness who the members are.
    TellsNoWitness,
    /// No box but a leader tells the witness who the members are.
    LeadersAloneTell,
    /// Those who were removed before they got in are waited for as if they had to get out.
    NeverRestates,
    /// A witness that is started anew has forgotten for whom it voted.
    WitnessForgetsVote,
    /// A witness that is started anew has forgotten what it counted for.
    WitnessForgetsConfirmed,
    /// A peer whose boot counter did not increase may connect.
    AdmitsEarlier,
    /// The status says that the site tolerates one failure more than a majority bears.
    ToleratesOneMore,
    /// The status does not mind that a box is catching up.
    ToleratesWhileCatchingUp,
    /// The status takes a box for caught up as soon as the witness stands in for it no more.
    ToleratesTooSoon,
}

#[cfg(feature = "simulation")]
std::thread_local! {
    static PRESENT: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug, or none, on for the boxes of this thread.
#[cfg(feature = "simulation")]
pub fn set(bug: Option<Bug>) {
    PRESENT.set(bug);
}

/// Whether this bug is switched on.
#[cfg(feature = "simulation")]
pub(crate) fn is(bug: Bug) -> bool {
    PRESENT.get() == Some(bug)
}

/// Whether this bug is switched on: never.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
