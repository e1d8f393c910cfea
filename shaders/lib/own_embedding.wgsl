// Embeddings of tokens that jobs train for themselves, ΔE [tokens of the job, cols]. own = [jobs, 2] (first word of ΔE in `values`, first word of its
// gradient), then [jobs, vocab]: the token's row of ΔE, NO_ROW where the job has the base's embedding.
const NO_ROW: u32 = 0xffffffffu;

fn own_row(row: u32) -> u32 {
    let job = row_job[row];
    let token = tokens[row];
    if (job >= p.jobs || token >= p.vocab) {
        return NO_ROW;
    }
    return own[2u * p.jobs + job * p.vocab + token];
}
