#import subgroup_rows

// Numbers 4 q .. + 8 of rows t .. t + 4, row `last` in place of later ones; `lane` is the place in the group of lanes that share. The importer
// declares row4(row, q): numbers 4 q .. + 4 of a row.
fn rows4(t: u32, last: u32, q: u32, lane: u32) -> Rows {
#ifdef QUADS
  let row = min(t + lane, last);
  return subgroup_rows(row4(row, q), row4(row, q + 1u));
#else
#ifdef SUBGROUPS
  return subgroup_rows(row4(min(t + lane / 2u, last), q + (lane & 1u)));
#else
  let t0 = min(t, last);
  let t1 = min(t + 1u, last);
  let t2 = min(t + 2u, last);
  let t3 = min(t + 3u, last);
  return Rows(
    row4(t0, q), row4(t0, q + 1u), row4(t1, q), row4(t1, q + 1u), row4(t2, q), row4(t2, q + 1u), row4(t3, q), row4(t3, q + 1u));
#endif
#endif
}
