//! Which dispatches a plan keeps: those with a result that somebody reads, and no other.

use crate::common::{Bench, gpu, noise};
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Class, Plan, Recorder, Store, Tensor, Tuner};
use weblora::kernels::{elementwise, rope};

const LEN: usize = 128;

/// Dispatches of what `body` records, given two persistent tensors.
fn dispatches(body: impl FnOnce(&mut Recorder, Tensor, Tensor)) -> usize {
    let mut store = Store::new();
    let [x, y] = ["x", "y"].map(|label| store.declare(label, Class::Io, LEN).unwrap());
    let tuner = Tuner::none();
    let mut recorder = Recorder::new(&tuner);
    body(&mut recorder, x, y);
    Plan::new(recorder, PlanLimits::FLOOR).unwrap().dispatches()
}

#[test]
fn what_nobody_reads_is_left_out_with_all_that_leads_to_it() {
    let found = dispatches(|rec, x, y| {
        let [a, b, c] = ["a", "b", "c"].map(|label| rec.transient(label, LEN));
        elementwise::add(rec, "read by the next", x, y, a);
        elementwise::add(rec, "read by the next", a, x, b);
        elementwise::swiglu(rec, "reads what nobody needs", b, x, c);
    });
    assert_eq!(found, 0);
    let found = dispatches(|rec, x, y| {
        let [a, b] = ["a", "b"].map(|label| rec.transient(label, LEN));
        elementwise::add(rec, "kept", x, y, a);
        elementwise::add(rec, "left out", x, a, b);
        elementwise::swiglu(rec, "kept: a persistent buffer is read later", a, x, y);
    });
    assert_eq!(found, 2);
}

#[test]
fn changes_in_place_are_kept_where_a_later_command_reads_them() {
    let turned = |read: bool| {
        dispatches(|rec, x, y| {
            let a = rec.transient("a", LEN);
            elementwise::add(rec, "made", x, y, a);
            let both = rope::Heads { q: a.slice(0..64), k: a.slice(64..128), heads: 1, kv_heads: 1, head_dim: 2 };
            rope::rotate(rec, "changed in place", x.slice(0..64), y.slice(0..64), both, rope::Turn::Forward);
            if read {
                elementwise::add(rec, "read", a, x, y);
            }
        })
    };
    assert_eq!((turned(true), turned(false)), (3, 0));
}

#[test]
fn slices_are_told_apart() {
    let found = dispatches(|rec, x, y| {
        let a = rec.transient("a", LEN);
        let (first, second) = (a.slice(0..64), a.slice(64..128));
        elementwise::add(rec, "kept", x.slice(0..64), x.slice(64..128), first);
        elementwise::add(rec, "left out", x.slice(0..64), x.slice(64..128), second);
        elementwise::add(rec, "kept", first, x.slice(0..64), y.slice(0..64));
    });
    assert_eq!(found, 2);
}

#[test]
fn a_reader_in_an_optional_group_keeps_what_it_reads() {
    let found = dispatches(|rec, x, y| {
        let [a, b] = ["a", "b"].map(|label| rec.transient(label, LEN));
        elementwise::add(rec, "kept", x, y, a);
        rec.optional(3, |rec| {
            elementwise::add(rec, "kept", a, x, y);
            elementwise::add(rec, "left out", a, x, b);
        });
    });
    assert_eq!(found, 2);
}

#[test]
fn clears_and_copies_count_as_writes() {
    let Some(gpu) = gpu() else { return };
    let (x, y) = (noise(1, LEN), noise(2, LEN));
    let mut bench = Bench::new();
    let [xt, yt] = [bench.put("x", &x), bench.put("y", &y)];
    let got = bench.run(gpu, &Tuner::none(), &[yt], |rec| {
        let [a, b] = ["a", "b"].map(|label| rec.transient(label, LEN));
        rec.clear(a);
        elementwise::swiglu(rec, "left out", xt.slice(0..64), xt.slice(64..128), b.slice(0..64));
        elementwise::swiglu(rec, "half of a", xt.slice(0..64), xt.slice(64..128), a.slice(0..64));
        rec.copy(a, yt);
    });
    let (gate, up) = x.split_at(64);
    let silu = |g: f32| g / (1.0 + (-g).exp());
    for i in 0..64 {
        assert!((got[0][i] - silu(gate[i]) * up[i]).abs() < 1e-5, "element {i}");
        assert_eq!(got[0][64 + i], 0.0, "element {i} of the cleared half");
    }
}
