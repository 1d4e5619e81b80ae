// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with a backend.

macro_rules! catalogue {
    ($(#[$about:meta])* $name:ident { $($fault:ident),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name { $($fault),* }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$fault),*];
        }
    };
}

catalogue! {
    /// What is wrong with a backend that is asked.
    Fault {
        // Times.
        SampledNow, SampledByUnixTime, SampledInTheFuture, SampledBeforeEverything, AsOfIsOld,
        AsOfIsInTheFuture, AsOfStandsStill,
        // Values.
        SwapsUsageAndHitRate, SwapsQueueAndRunning, SwapsBlocksAndBlockSize, SwapsTokens, SwapsPods,
        UsesPercent, InventsNotANumber, InventsHugeCounts, NegativeRates, UnmeasuredIsZero,
        LoadPerMinute, LatencyInMilliseconds, RoundsRates, MeanIsNoSum, NoServers, SetsTheVariant,
        SetsTheCost, MarksAnotherBackend, ZeroWindow, TracesUnasked, ColoursWarnings,
        // Rows.
        LosesAPod, InventsAPod, DoublesAPod, AlwaysIncomplete, NoLoad, LoadByPodUnasked,
        LoadByModelWhenPodsAreAsked, LoadOfAPodTwice, LoadOfOnePodOnly,
        // Models.
        MissingIsEmpty, EmptyIsMissing, MissingIsFailed, ErrorIsMissing, ErrorIsEmpty,
        ErrorIsNoAnswer, ErrorIsFormerValues, LeavesMissingOut, LeavesTheLastOut, AnswersUnasked,
        FoldsCase, TrimsNames, MatchesPrefixes, MatchesPatterns, IgnoresTheNamespace,
        PanicsOnOddNames, MixesFetches, FailsInTheBackground,
        // Time, threads and tasks.
        IgnoresTimeLeft, MissingWithoutTime, BlocksTheThread, StuckAfterADrop, LeavesTasks,
        // Permits and requests.
        TakesNoPermit, NestsPermits, ReleasesEarly, APermitForEachModel, KeepsPermits,
        TwoRequestsForAPermit, TriesAgain, TriesAgainWithPermits, AsksWhenRefused, HidesTheRefusal,
        // Errors.
        ShowsTheSecret, ShowsTheSecretInTheSource, ColoursErrors, ErrorsWithoutEnd,
        UnauthorizedIsConnect, StallIsConnect, RateLimitedIsServerError, DownIsConfiguration,
        NamesAnotherBackend, NamesAnotherOperation, SaysNoSubject,
        // A part that fails.
        FailedFieldIsZero, FailedFieldIsSilent, FailedFieldHasNoReason, HiddenPodIsGone,
        HiddenPodIsCountedOut, BlamesAnotherPod,
        // Lists.
        ListsHalf, ListsTwice, CountsWrongly, ListIsEmptyOnErrors, ListTakesNoPermit,
        ListIgnoresTimeLeft, ListIsNotSupported,
        // Probes.
        ProbesBlindly, ProbeFails, ProbeHasNoRemedy, ProbeIdsAreTheSame, ProbeChecksNothing,
        ProbeIgnoresTimeLeft,
        // Itself.
        ShoutsItsName, ChangesItsName, HasNoTimeOut, PodsWithoutLoad,
    }
}

/// The live half of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Live {
    None,
    Right,
    Wrong(LiveFault),
}

catalogue! {
    /// What is wrong with a live half.
    LiveFault {
        SilentOnErrors, MissingOnErrors, FormerValuesOnErrors, EndsItsCycleEarly, NeverEndsACycle,
        PushesUntracked, NeverPushesMissing, EndsByItself, Panics, PushesOnce, HearsTrackedOnce,
        GoesOnWhenDropped, StartsOnce, HiddenPodIsGone, PushesTheFuture, PushesEmptyForMissing,
    }
}
