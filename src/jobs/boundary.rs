//! The parts of a step boundary: early stopping, admission, evaluations at rungs, the next fused step.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::{Admission, PlannedBytes, choose};
use super::early_stop::{Member, Verdict};
use super::event::Action;
use super::job::{Job, JobId};
use super::scheduler::{Round, Scheduler};
use super::state::{Pause, State};

/// Jobs that are told at a step boundary why they wait.
const EXPLAINED: usize = 64;

impl Scheduler {
    /// Early stopping: of jobs that stepped or were evaluated, and of those that wait at a rung where something changed.
    pub(super) fn judge(&mut self, round: &mut Round) {
        if self.options.early_stop.rules.is_empty() {
            self.changed.clear();
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        let held =
            |job: &Job| job.status.state == State::Paused(Pause::Rung) && job.spec.group.as_ref().is_some_and(|g| changed.contains(g));
        let waiting: BTreeSet<usize> = (0..self.jobs.len()).filter(|i| held(&self.jobs[*i])).collect();
        let groups = self.groups(round.stepped.iter().chain(&round.evaluated).chain(&waiting));
        let asked = round.stepped.iter().map(|i| (*i, true)).chain(round.evaluated.union(&waiting).map(|i| (*i, false)));
        for (i, each_step) in asked.collect::<Vec<_>>() {
            if self.jobs[i].status.state.is_over() {
                continue;
            }
            let alone = vec![i];
            let members = self.jobs[i].spec.group.as_ref().and_then(|group| groups.get(group)).unwrap_or(&alone);
            // Losses on other rows say nothing.
            let judged_on = &self.jobs[i].spec.judged_on;
            let members: Vec<usize> = members.iter().copied().filter(|m| self.jobs[*m].spec.judged_on == *judged_on).collect();
            let own = members.iter().position(|m| *m == i).unwrap_or_default();
            let group: Vec<Member<'_>> =
                members.iter().map(|m| Member { curve: &self.jobs[*m].curve, over: self.jobs[*m].status.state.is_over() }).collect();
            let verdict = self.options.early_stop.judge(&group, own, each_step);
            self.follow(i, verdict, round);
        }
    }

    /// Members, by arrival, of the groups that these jobs are in.
    fn groups<'a>(&self, of: impl Iterator<Item = &'a usize>) -> BTreeMap<String, Vec<usize>> {
        let mut groups: BTreeMap<String, Vec<usize>> = of.filter_map(|i| Some((self.jobs[*i].spec.group.clone()?, Vec::new()))).collect();
        for (i, job) in self.jobs.iter().enumerate() {
            if let Some(members) = job.spec.group.as_ref().and_then(|group| groups.get_mut(group)) {
                members.push(i);
            }
        }
        groups
    }

    fn follow(&mut self, i: usize, verdict: Verdict, round: &mut Round) {
        let state = self.jobs[i].status.state;
        match verdict {
            Verdict::Stop(reason) => self.end(i, State::Stopped, reason, round),
            Verdict::Hold(reason) if state == State::Running => self.change(i, State::Paused(Pause::Rung), Action::Pause, reason, round),
            // It was paused at the rung, and is asked to go on.
            Verdict::Hold(reason) if state == State::Paused(Pause::Memory) => {
                self.change(i, State::Paused(Pause::Rung), Action::Note, reason, round);
            }
            Verdict::Continue if state == State::Paused(Pause::Rung) => {
                let reason = "it is among the best at its rung and goes on when it fits".to_owned();
                self.change(i, State::Paused(Pause::Memory), Action::Note, reason, round);
            }
            _ => {}
        }
    }

    /// Who is on the device from now on.
    pub(super) fn admit(&mut self, planned: &PlannedBytes<'_>, round: &mut Round) {
        let limit = self.options.memory.unwrap_or(u64::MAX);
        let budget = self.usable.map_or(limit, |usable| usable.min(limit));
        self.fail_wide(round);
        let mut shrunk: BTreeSet<usize> = BTreeSet::new();
        let chosen = loop {
            let found = choose(&self.options, &self.jobs, budget, planned);
            if found.too_large.is_empty() {
                break found;
            }
            for (i, bytes) in found.too_large {
                if bytes > limit {
                    let reason = format!(
                        "it needs {} alone, and the budget is {}: raise memory, or lower its batch, seq or rank",
                        mib(bytes),
                        mib(limit)
                    );
                    self.end(i, State::Failed, reason, round);
                } else if self.jobs[i].shrink() {
                    shrunk.insert(i);
                } else {
                    let reason = format!("the device ran out of memory below {}, and its micro-batch cannot be smaller", mib(bytes));
                    self.end(i, State::Failed, reason, round);
                }
            }
        };
        for i in shrunk.into_iter().filter(|i| !self.jobs[*i].status.state.is_over()).collect::<Vec<_>>() {
            let max_rows = self.jobs[i].spec.max_rows;
            let reason = format!("the device ran out of memory: micro-batches of at most {max_rows} rows, and more of them");
            self.tell(i, Action::Shrink { max_rows }, reason, round);
        }
        self.exchange(&chosen, budget, planned, round);
    }

    /// Jobs whose micro-batch is larger than a whole fused step.
    fn fail_wide(&mut self, round: &mut Round) {
        let most = self.options.step_tokens;
        let widest = |job: &Job| job.spec.max_rows.max(job.spec.next.rows);
        let wide: Vec<usize> =
            (0..self.jobs.len()).filter(|i| self.jobs[*i].status.state.is_ready() && widest(&self.jobs[*i]) > most).collect();
        for i in wide {
            let rows = widest(&self.jobs[i]);
            let reason =
                format!("its micro-batch has up to {rows} rows, and a fused step {most}: raise step-tokens, or lower its batch or seq");
            self.end(i, State::Failed, reason, round);
        }
    }

    /// Pauses and admits until exactly the chosen jobs are on the device.
    fn exchange(&mut self, chosen: &Admission, budget: u64, planned: &PlannedBytes<'_>, round: &mut Round) {
        let set: Vec<&Job> = chosen.resident.iter().map(|i| &self.jobs[*i]).collect();
        let bytes = mib(if set.is_empty() { 0 } else { planned(&set) });
        let running = |jobs: &[Job], i: usize| jobs[i].status.state == State::Running;
        let new: Vec<usize> = chosen.resident.iter().copied().filter(|i| !running(&self.jobs, *i)).collect();
        let leaving: Vec<usize> = (0..self.jobs.len()).filter(|i| running(&self.jobs, *i) && !chosen.resident.contains(i)).collect();
        for i in leaving {
            let reason = match new.first() {
                Some(first) => {
                    let first = &self.jobs[*first].spec;
                    format!("job {} of priority {} comes first, and both do not fit into {}", first.name, first.priority, mib(budget))
                }
                None => format!("the jobs on the device no longer fit into {}", mib(budget)),
            };
            self.change(i, State::Paused(Pause::Memory), Action::Pause, reason, round);
        }
        let least = (0..self.jobs.len()).filter(|i| running(&self.jobs, *i)).map(|i| self.jobs[i].served).min();
        let of = if budget == u64::MAX { String::new() } else { format!(" of {}", mib(budget)) };
        for i in new {
            let action = if self.jobs[i].started { Action::Resume } else { Action::Admit };
            self.change(i, State::Running, action, format!("with it {bytes}{of} are planned"), round);
            let (job, now) = (&mut self.jobs[i], self.boundary);
            (job.started, job.last_taken, job.served) = (true, now, job.served.max(least.unwrap_or(0)));
        }
        self.explain_waiting(&chosen.resident, budget, planned, round);
    }

    /// Why the first jobs that wait do so: in their status, and for those that came while others trained once as a decision.
    fn explain_waiting(&mut self, resident: &[usize], budget: u64, planned: &PlannedBytes<'_>, round: &mut Round) {
        const WAITS: &str = "it waits: ";
        let waiting = (0..self.jobs.len()).filter(|i| self.jobs[*i].status.state == State::Waiting);
        for i in waiting.take(EXPLAINED).collect::<Vec<_>>() {
            let beside: Vec<&Job> = resident.iter().chain([&i]).map(|i| &self.jobs[*i]).collect();
            let why = match planned(&beside) {
                u64::MAX => "there is no room beside the jobs on the device".to_owned(),
                bytes if bytes > budget => {
                    format!("beside the jobs on the device {} would be planned, and {} may be", mib(bytes), mib(budget))
                }
                _ => "those before it come first".to_owned(),
            };
            let is_news = self.jobs[i].arrived > 0 && !self.jobs[i].status.reason.starts_with(WAITS);
            self.jobs[i].status.reason = format!("{WAITS}{why}");
            if is_news {
                self.tell(i, Action::Note, self.jobs[i].status.reason.clone(), round);
            }
        }
    }

    /// Jobs that passed a rung are evaluated before they go on.
    pub(super) fn evaluate_rungs(&mut self, round: &mut Round) {
        let unit = self.options.early_stop.unit_name();
        for (i, rung) in std::mem::take(&mut round.passed) {
            // One that was evaluated at this very step has its loss.
            if !round.evaluated.contains(&i) {
                self.jobs[i].owed_rung = Some(rung);
            }
        }
        for i in 0..self.jobs.len() {
            // One that was paused meanwhile is evaluated when it is back.
            if self.jobs[i].status.state == State::Running
                && let Some(rung) = self.jobs[i].owed_rung.take()
            {
                self.jobs[i].awaited = true;
                self.tell(i, Action::Evaluate, format!("it is at the rung of {rung} {unit}"), round);
            }
        }
    }

    /// The jobs of the next fused step.
    pub(super) fn pick(&self) -> Vec<JobId> {
        let ready: Vec<&Job> = self.jobs.iter().filter(|job| job.status.state == State::Running && !job.awaited).collect();
        let picked = (self.options.policy.pick)(&self.options.numbers(), &ready, self.boundary);
        picked.into_iter().map(|i| ready[i].id).collect()
    }
}

/// Bytes for people.
fn mib(bytes: u64) -> String {
    match bytes as f64 / 1_048_576.0 {
        mib if mib >= 10_240.0 => format!("{:.1} GiB", mib / 1024.0),
        mib if mib >= 10.0 => format!("{mib:.0} MiB"),
        _ => format!("{bytes} bytes"),
    }
}
