//! Skipped positions (PoSE, arXiv 2309.10400): rows as short as the model reads, whose positions are spread over the longer context that it is
//! to read: the angles of long distances are trained at the cost of short rows.
//!
//! A row of n tokens is cut in two at a token of 1 ..= n − 1, and the second part begins up to `context − n` positions later. Both numbers
//! come from the documented generator with the key `"{seed}/pose/{micro-batch}/{row}"`, so that a resumed run draws the same.

use super::batch::Batch;
use crate::rng;

/// Spreads the positions of every document over `context` positions. `lengths` are the documents' tokens, in the order of their rows;
/// `number` counts the run's micro-batches.
pub(super) fn spread(batch: &mut Batch, lengths: &[usize], seed: u64, number: u64, context: usize) {
    let mut first = 0;
    for (example, length) in batch.examples.iter().zip(lengths) {
        let (cut, skip) = draw(&format!("{seed}/pose/{number}/{example}"), *length, context);
        for position in &mut batch.position[first + cut..first + length] {
            *position += skip as u32;
        }
        first += length;
    }
}

/// Where a row of `length` tokens is cut, and how many positions are left out there.
fn draw(key: &str, length: usize, context: usize) -> (usize, usize) {
    if length < 2 || context <= length {
        return (length, 0);
    }
    // Uniform in (-1, 1), of which f64 holds every value exactly.
    let below = |i: u64, n: usize| (((f64::from(rng::uniform(key, i, 1.0)) + 1.0) / 2.0 * n as f64) as usize).min(n - 1);
    (1 + below(1, length - 1), below(2, context - length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Example;

    #[test]
    fn positions_rise_end_inside_the_context_and_reach_its_end() {
        let examples: Vec<Example> =
            [40, 1, 23].into_iter().map(|n| Example { tokens: vec![1; n], targets: vec![true; n], row: 1, rejected: None }).collect();
        let packed = || Batch::pack(vec![0, 1, 2], &examples, 70);
        let (mut farthest, mut cuts) = (0, std::collections::BTreeSet::new());
        for number in 0..300 {
            let mut batch = packed();
            spread(&mut batch, &[40, 1, 23], 0, number, 128);
            for (begin, end) in [(0, 40), (40, 41), (41, 64)] {
                let own = &batch.position[begin..end];
                assert!(own[0] == 0 && own.windows(2).all(|two| two[0] < two[1]) && own[end - begin - 1] < 128);
                assert!(own.windows(2).filter(|two| two[1] - two[0] > 1).count() <= 1, "one gap");
            }
            assert_eq!(batch.position[64..], [0; 6], "rows left over");
            farthest = farthest.max(batch.position[39]);
            cuts.extend((1..40).find(|i| batch.position[*i] != *i as u32));
            let mut again = packed();
            spread(&mut again, &[40, 1, 23], 0, number, 128);
            assert_eq!(again, batch);
        }
        assert!(farthest == 127 && cuts.len() > 30, "{farthest} {cuts:?}");
        // A row that fills the context has no gap.
        let mut batch = packed();
        spread(&mut batch, &[40, 1, 23], 0, 0, 40);
        assert_eq!(batch.position[..40], packed().position[..40]);
    }
}
