//! Several data files dealt out in given shares.
//!
//! An epoch has as many rows as all files together, N. File i gets a quota of them: `w_i / Σ w · N`, rounded to whole rows by the largest
//! remainders. Within its quota a file is read pass after pass, and goes on in the next epoch where it stopped, so that no row
//! of a file is ever one visit ahead of another by more than one. All of it is a function of the seed and the epoch:
//!
//! ```text
//! slots      = shuffled("{seed}/shuffle/{epoch}", N)         the order of the epoch; without shuffling: every file's rows spread evenly
//! slot s     = the j-th row of file i's quota q_i,           the files' slots lie one after the other
//! place      = epoch · q_i + j                               in the endless reading of file i
//! row        = shuffled("{seed}/shuffle/{i}/{place / n_i}", n_i)[place mod n_i]
//! ```

use std::ops::Range;

use crate::{Error, Result, rng};

/// How much of each file an epoch gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Shares {
    /// In proportion to these numbers, one a file.
    Weights(Vec<f64>),
    /// In proportion to n^(1/T) where n is the file's number of rows: 1 is proportional to size, larger is more even.
    Temperature(f64),
}

/// Files and their quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Rows of each file.
    sizes: Vec<usize>,
    /// Rows of an epoch from each file; their sum is that of the sizes.
    quotas: Vec<usize>,
}

impl Mixture {
    /// Quotas for files of `sizes` rows; `names` are for errors.
    ///
    /// # Errors
    /// When the number of weights is not that of the files, or when a file would get no row of an epoch.
    pub fn new(names: &[&str], sizes: &[usize], shares: &Shares) -> Result<Self> {
        let (key, weights) = match shares {
            Shares::Weights(weights) => ("data-weights", weights.clone()),
            Shares::Temperature(t) => ("data-temperature", sizes.iter().map(|n| (*n as f64).powf(1.0 / t)).collect()),
        };
        if weights.len() != sizes.len() {
            let problem = format!("there are {} weights for {} data files", weights.len(), sizes.len());
            return Err(Error::config(key, problem, "give one weight for each --data"));
        }
        let quotas = quotas(sizes.iter().sum(), &weights);
        if let Some(i) = quotas.iter().position(|quota| *quota == 0) {
            let problem = format!("`{}` would get none of the {} rows of an epoch", names[i], sizes.iter().sum::<usize>());
            return Err(Error::config(key, problem, "give it a larger share, or leave the file out"));
        }
        Ok(Self { sizes: sizes.to_vec(), quotas })
    }

    /// Rows of an epoch from each file.
    pub fn quotas(&self) -> &[usize] {
        &self.quotas
    }

    /// The rows of an epoch in their order, as indices into all files' rows one after the other.
    pub fn order(&self, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
        let mut of_slot = Vec::new();
        let mut base = 0;
        for (file, (size, quota)) in self.sizes.iter().zip(&self.quotas).enumerate() {
            let first = u128::from(epoch) * *quota as u128;
            let mut pass = None;
            for place in first..first + *quota as u128 {
                let (number, at) = (place / *size as u128, (place % *size as u128) as usize);
                let row = if shuffle {
                    let (_, order) = match pass.take() {
                        Some((known, order)) if known == number => pass.insert((known, order)),
                        _ => pass.insert((number, rng::shuffled(&format!("{seed}/shuffle/{file}/{number}"), *size))),
                    };
                    order[at]
                } else {
                    at as u32
                };
                of_slot.push(base + row);
            }
            base += *size as u32;
        }
        let slots = if shuffle { rng::shuffled(&format!("{seed}/shuffle/{epoch}"), of_slot.len()) } else { self.spread() };
        slots.into_iter().map(|slot| of_slot[slot as usize]).collect()
    }

    /// The slots in an order that spreads every file's evenly: by (j + 1/2) / quota, the earlier file first.
    fn spread(&self) -> Vec<u32> {
        let mut slots: Vec<(f64, u32)> = Vec::new();
        for quota in &self.quotas {
            let base = slots.len();
            slots.extend((0..*quota).map(|j| ((j as f64 + 0.5) / *quota as f64, (base + j) as u32)));
        }
        slots.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        slots.into_iter().map(|(_, slot)| slot).collect()
    }
}

/// `total` whole rows in proportion to `weights`, rounded by the largest remainders, the earlier file first.
fn quotas(total: usize, weights: &[f64]) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| w / sum * total as f64).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|x| x.floor() as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| (exact[*b] - exact[*b].floor()).total_cmp(&(exact[*a] - exact[*a].floor())).then(a.cmp(b)));
    let missing = total.saturating_sub(quotas.iter().sum());
    order.iter().cycle().take(missing).for_each(|i| quotas[*i] += 1);
    quotas
}

/// Where each file's rows lie when they are put one after the other.
pub fn ranges(sizes: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = 0;
    sizes
        .into_iter()
        .map(|size| {
            end += size;
            end - size..end
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(order: &[u32], sizes: &[usize]) -> Vec<usize> {
        ranges(sizes.iter().copied()).into_iter().map(|r| order.iter().filter(|id| r.contains(&(**id as usize))).count()).collect()
    }

    #[test]
    fn quotas_are_whole_and_complete() {
        assert_eq!(quotas(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(quotas(10, &[2.0, 1.0]), [7, 3]);
        assert_eq!(quotas(7, &[0.5, 0.5]), [4, 3]);
        assert_eq!(quotas(1_000_003, &[1e-9, 1e9, 3e8]).iter().sum::<usize>(), 1_000_003);
    }

    #[test]
    fn shares_hold_in_every_epoch_and_every_row_is_visited_equally_often() {
        let sizes = [5, 30, 11];
        let mixture = Mixture::new(&["a", "b", "c"], &sizes, &Shares::Weights(vec![1.0, 1.0, 2.0])).expect("a mixture");
        for shuffle in [true, false] {
            let mut visits = vec![0usize; 46];
            for epoch in 0..9 {
                let order = mixture.order(3, epoch, shuffle);
                assert_eq!(counts(&order, &sizes), mixture.quotas());
                assert_eq!(order, mixture.order(3, epoch, shuffle));
                order.iter().for_each(|id| visits[*id as usize] += 1);
            }
            for range in ranges(sizes) {
                let (low, high) = (visits[range.clone()].iter().min(), visits[range.clone()].iter().max());
                assert!(high.zip(low).is_some_and(|(h, l)| h - l <= 1), "{visits:?}");
            }
            // The comparison can fail: taking the first rows of every file anew each epoch would not be fair.
            assert!(visits.iter().max() > visits.iter().min());
        }
        assert_ne!(mixture.order(3, 0, true), mixture.order(4, 0, true));
        assert_ne!(mixture.order(3, 0, true), mixture.order(3, 1, true));
    }

    #[test]
    fn a_temperature_evens_out() {
        let sizes = [10, 1000];
        let share = |t| Mixture::new(&["a", "b"], &sizes, &Shares::Temperature(t)).expect("a mixture").quotas()[0];
        assert_eq!((share(1.0), share(2.0)), (10, 92)); // 1010 · √10 / (√10 + √1000)
        assert!(share(1e9) == 505);
    }

    #[test]
    fn in_file_order_the_files_alternate() {
        let mixture = Mixture::new(&["a", "b"], &[4, 2], &Shares::Temperature(1.0)).expect("a mixture");
        assert_eq!(mixture.order(0, 0, false), [0, 4, 1, 2, 5, 3]);
    }

    #[test]
    fn what_cannot_be_dealt_is_refused() {
        let error =
            |weights: &[f64]| Mixture::new(&["a", "b"], &[4, 2], &Shares::Weights(weights.to_vec())).expect_err("refused").to_string();
        assert!(error(&[1.0]).contains("1 weights for 2 data files"));
        assert!(error(&[1.0, 0.01]).contains("`b` would get none of the 6 rows"));
    }
}
