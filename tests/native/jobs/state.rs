//! The life of a job.

use weblora::jobs::state::{Pause, State, Status};

const ALL: [State; 8] = [
    State::Waiting,
    State::Running,
    State::Paused(Pause::Memory),
    State::Paused(Pause::User),
    State::Paused(Pause::Rung),
    State::Done,
    State::Stopped,
    State::Failed,
];

#[test]
fn only_legal_changes_are_made_and_the_reason_stays() {
    for from in ALL {
        for to in ALL {
            let mut status = Status { state: from, reason: "before".into() };
            let changed = status.change("a", to, "after");
            assert_eq!(changed.is_ok(), from.may_become(to));
            assert_eq!(status.state, if changed.is_ok() { to } else { from });
            assert_eq!(status.reason, if changed.is_ok() { "after" } else { "before" });
            if let Err(error) = changed {
                assert!(error.to_string().contains(&format!("job a is {} and cannot become {}", from.name(), to.name())));
            }
        }
    }
}

#[test]
fn what_is_over_stays_so_and_everything_else_can_end() {
    for state in ALL {
        assert_eq!(ALL.iter().any(|to| state.may_become(*to)), !state.is_over(), "{state:?}");
        assert_eq!(state.may_become(State::Stopped), !state.is_over());
        assert_eq!(state.may_become(State::Failed), !state.is_over());
        assert_eq!(state.may_become(State::Done), state == State::Running);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
    assert!(!State::Waiting.may_become(State::Paused(Pause::Memory)), "it has nothing to move");
    assert!(!State::Paused(Pause::User).may_become(State::Running), "it goes through the queue");
}
