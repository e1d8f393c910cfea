// Norm weights of jobs that train their own: own[norm · jobs + job] = (word of the weights in `values`, word of their gradient); NO_WEIGHTS
// where the job has the base's. The including kernel declares `p.first` (norm · jobs), `p.jobs` and the bindings.
const NO_WEIGHTS: u32 = 0xffffffffu;

// First vector of the row's own weights, or NO_WEIGHTS.
fn own_weights(row: u32) -> u32 {
    let job = row_job[row];
    if (job >= p.jobs) {
        return NO_WEIGHTS;
    }
    let word = own[2u * (p.first + job)];
    return select(word / WIDE, NO_WEIGHTS, word == NO_WEIGHTS);
}

fn weight(begin: u32, c: u32) -> Lane {
    if (begin == NO_WEIGHTS) {
        return w[c];
    }
    return values[begin + c];
}
