//! Routing as obvious loops over one job's rows, to compare with and to differentiate numerically.

use super::{RouterRow, strategy};
use crate::kernels::real::Real;

/// How one row is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct Route<R> {
    /// softmax of the logits.
    pub probs: Vec<R>,
    /// Log of the sum of exponentials of the logits.
    pub lse: R,
    /// Expert and weight of each choice.
    pub chosen: Vec<(usize, R)>,
}

/// Routes one row by its job's `logits` `[experts]`.
pub fn route<R: Real>(router: &RouterRow, logits: &[R]) -> Route<R> {
    let top = logits.iter().fold(logits[0], |top, z| top.max(*z));
    let exponentials: Vec<R> = logits.iter().map(|z| (*z - top).exp()).collect();
    let sum: R = exponentials.iter().copied().sum();
    let probs: Vec<R> = exponentials.iter().map(|x| *x / sum).collect();
    let mut order: Vec<usize> = (0..probs.len()).collect();
    // Stable: the first of equals.
    order.sort_by(|a, b| probs[*b].to_f64().total_cmp(&probs[*a].to_f64()));
    let temperature = R::of(f64::from(router.temperature));
    let mut chosen: Vec<(usize, R)> = Vec::new();
    let mut total = R::default();
    for expert in order.into_iter().take(router.choices as usize) {
        chosen.push((expert, probs[expert] / temperature));
        total += probs[expert] / temperature;
        if router.strategy == strategy::TOP_P && total.to_f64() > f64::from(router.top_p) {
            break;
        }
    }
    if router.renormalize == 1 {
        chosen.iter_mut().for_each(|(_, weight)| *weight = *weight / total);
    }
    Route { probs, lse: top + sum.ln(), chosen }
}

/// What the balance losses come to over the rows of one job in one block: their sum with coefficients, from the rows' routes.
pub fn balance_loss<R: Real>(router: &RouterRow, routes: &[Route<R>]) -> R {
    let rows = R::of(routes.len().max(1) as f64);
    let mut sum = R::default();
    for e in 0..router.experts as usize {
        let chosen = routes.iter().flat_map(|route| &route.chosen).filter(|(expert, _)| *expert == e).count();
        let p: R = routes.iter().map(|route| route.probs[e]).sum::<R>() / rows;
        sum += R::of(chosen as f64) / rows * p;
    }
    let z: R = routes.iter().map(|route| route.lse * route.lse).sum::<R>() / rows;
    R::of(f64::from(router.aux_coef) * f64::from(router.experts)) * sum + R::of(f64::from(router.z_coef)) * z
}

/// The gradient of a row's logits from `dweight`, the gradient of its choices' weights, and of [`balance_loss`] over `rows` rows in which
/// `chosen` counts the choices of each expert.
pub fn route_backward<R: Real>(router: &RouterRow, route: &Route<R>, dweight: &[R], chosen: &[usize], rows: usize) -> Vec<R> {
    let rows = R::of(rows as f64);
    let coefficient = R::of(f64::from(router.aux_coef) * f64::from(router.experts));
    let mut dprob: Vec<R> = chosen.iter().map(|count| coefficient * R::of(*count as f64) / rows / rows).collect();
    let picked: R = route.chosen.iter().map(|(e, _)| route.probs[*e]).sum();
    let (scale, mean) = if router.renormalize == 1 {
        (picked, route.chosen.iter().zip(dweight).map(|((_, w), d)| *w * *d).sum())
    } else {
        (R::of(f64::from(router.temperature)), R::default())
    };
    for ((expert, _), d) in route.chosen.iter().zip(dweight) {
        dprob[*expert] += (*d - mean) / scale;
    }
    let sum: R = route.probs.iter().zip(&dprob).map(|(p, d)| *p * *d).sum();
    let z = R::of(2.0 * f64::from(router.z_coef)) * route.lse / rows;
    route.probs.iter().zip(&dprob).map(|(p, d)| *p * (*d - sum + z)).collect()
}
