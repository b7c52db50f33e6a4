//! Deliberate bugs, chosen by a type: tests show that each of them is caught. [`NoMutation`] has none, and
//! what a bug would do is not in code that is built with it.

use core::fmt::Debug;

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A set of deliberate bugs: an empty type whose constants say which. All are `false` unless said.
        pub trait Mutation: Clone + Debug + 'static {
            $($(#[$doc])* const $name: bool = false;)*
        }

        /// All there are: what tests hold their lists against.
        pub const MUTATIONS: &[&str] = &[$(stringify!($name)),*];
    };
}

mutations! {
    /// Messages leave before the term and the vote behind them are durable.
    SAY_BEFORE_DURABLE,
    /// A follower acknowledges entries that are not durable.
    ACKNOWLEDGE_BEFORE_DURABLE,
    /// A leader counts its own entries before they are durable.
    COUNT_OWN_BEFORE_DURABLE,
    /// A group that was written before entries were dropped vouches for those in their place.
    VOUCH_FOR_REPLACED,
    /// A leader commits entries of an older term by counting (figure 8 of the paper).
    COMMIT_OLD_TERM,
    /// A voter grants another vote in the same term.
    GRANT_TWICE,
    /// A vote is granted to whoever asks, whatever its log.
    GRANT_TO_ANY_LOG,
    /// A node that starts again has forgotten for whom it voted.
    FORGET_VOTE_AT_START,
    /// A witness compares logs by their terms, without the subterms.
    FORGET_SUBTERM,
    /// A configuration entry does not begin a subterm.
    CONFIGURATION_WITHIN_SUBTERM,
    /// What an observer has counts for committing.
    COUNT_OBSERVERS,
    /// A leader that is no voter any more counts its own log.
    COUNT_REMOVED_LEADER,
    /// A leader that was removed goes on leading.
    REMOVED_LEADER_STAYS,
    /// A node that is no voter campaigns.
    NON_VOTER_CAMPAIGNS,
    /// A majority of the incoming half is enough in a joint configuration.
    ONE_HALF_IS_ENOUGH,
    /// A joint configuration is left before it is committed.
    LEAVE_JOINT_EARLY,
    /// A configuration is changed before an entry of the leader's own term is committed.
    CHANGE_TOO_EARLY,
    /// A configuration is changed while another change is not committed.
    CHANGE_WHILE_CHANGING,
    /// An observer is promoted however far behind it is.
    PROMOTE_LAGGING,
    /// A configuration stays in force when its entry is dropped.
    KEEP_DROPPED_CONFIGURATION,
    /// A leader transfers leadership to a voter that lacks entries.
    TRANSFER_TO_LAGGING,
    /// A leader takes proposals while it transfers leadership.
    PROPOSE_WHILE_TRANSFERRING,
    /// Votes are granted while a leader is heard.
    IGNORE_LEASE,
    /// A node campaigns without asking whether it would win.
    NO_PRE_VOTE,
    /// A leader that hears no majority goes on.
    NO_CHECK_QUORUM,
    /// An acknowledgement of an older term counts.
    TAKE_STALE_ACKNOWLEDGEMENT,
    /// A probe without entries drops what follows it.
    EMPTY_APPEND_TRUNCATES,
    /// An append drops what follows it although it brings nothing new.
    OLD_APPEND_TRUNCATES,
    /// A follower takes entries without comparing what stands before them.
    APPEND_WITHOUT_COMPARING,
    /// A follower commits beyond what it knows to match.
    COMMIT_BEYOND_MATCHED,
    /// A snapshot is taken in that covers less than is committed.
    TAKE_OLD_SNAPSHOT,
    /// A read is confirmed although nothing of the leader's term is committed.
    READ_TOO_EARLY,
    /// A read is confirmed by answers from before it was asked for.
    READ_BY_OLD_ROUND,
    /// A full window of appends keeps the commit index back.
    FULL_WINDOW_HIDES_COMMIT,
    /// A leader without a quorum takes proposals without bound.
    UNBOUNDED_TAIL,
    /// The witness counts before it has acknowledged in this subterm.
    COUNT_SILENT_WITNESS,
    /// What the witness acknowledged in an older subterm counts in this one.
    WITNESS_ACROSS_SUBTERMS,
    /// The witness counts beside voters that are not in the replication set.
    WITNESS_BESIDE_ANYBODY,
    /// The witness is written to before a sub-quorum has acknowledged.
    WITNESS_BEFORE_SUB_QUORUM,
    /// A replication set is swapped without beginning a subterm.
    SWAP_WITHIN_SUBTERM,
    /// A recovered voter returns to the replication set before its log has caught up.
    RETURN_LAGGING,
    /// A candidate asks the witness at once, naming no votes.
    WITNESS_ASKED_FIRST,
    /// A witness outside the replication set confirms reads by its silence.
    READ_BY_SILENT_WITNESS,
    /// A witness grants another vote in the same term.
    WITNESS_VOTES_TWICE,
    /// A witness grants whoever voted before it.
    WITNESS_IGNORES_SET,
    /// A witness takes the record of an older subterm.
    WITNESS_TAKES_OLD_RECORD,
    /// A witness answers what it has not stored.
    WITNESS_SAYS_BEFORE_STORED,
}

/// The core as it is meant.
#[derive(Clone, Copy, Debug)]
pub enum NoMutation {}

impl Mutation for NoMutation {}
