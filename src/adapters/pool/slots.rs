//! What one job brings to the pool: its row of the sites table at each site.

use super::super::layout::{AdapterLayout, SiteAdapter};
use super::super::params::Storage;
use super::super::product::Slice;
use super::places::Places;
use crate::Error;
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};

pub(super) fn not_one(job: usize, problem: String) -> Error {
    Error::Adapter { adapter: format!("job {job}"), problem, hint: "fold their scales and lay them out side by side first" }
}

/// One job's row of the sites table, or what is wrong with the site.
pub(super) fn site_row(layout: &AdapterLayout, adapter: &SiteAdapter, places: &Places) -> std::result::Result<SiteRow, String> {
    let specs = &layout.params.specs;
    let wrong = |problem: &str| format!("the products at {} {problem}", adapter.site);
    let [first, ..] = adapter.slices[..] else { return Err(wrong("are none")) };
    if adapter.slices.iter().any(|slice| slice.scale != first.scale) {
        return Err(wrong("have different scales"));
    }
    let adjacent =
        |one: &Slice, next: &Slice| [(one.a, next.a), (one.b, next.b)].iter().all(|&(i, j)| specs[i].range().end == specs[j].offset);
    if !adapter.slices.windows(2).all(|pair| adjacent(&pair[0], &pair[1])) {
        return Err(wrong("are not rows of one stack"));
    }
    let mut row = SiteRow {
        a_offset: places.values[first.a],
        b_offset: places.values[first.b],
        grad_a_offset: NO_GRADIENT,
        grad_b_offset: NO_GRADIENT,
        scale: first.scale,
        ..SiteRow::default()
    };
    for slice in &adapter.slices {
        if specs[slice.a].trainable || specs[slice.b].trainable {
            let whole = row.train_begin == row.train_end;
            if whole {
                row.train_begin = u32::from(row.rank);
                (row.grad_a_offset, row.grad_b_offset) = (places.grads[slice.a], places.grads[slice.b]);
            } else if row.train_end != u32::from(row.rank) {
                return Err(wrong("train with frozen ones between them"));
            }
            row.train_end = u32::from(row.rank) + slice.rank as u32;
        }
        let storage = [specs[slice.a].storage, specs[slice.b].storage];
        match storage {
            [Storage::F32, Storage::F32] if row.half == 0 => {}
            [Storage::F16, Storage::F16] => row.half += slice.rank as u16,
            _ => return Err(wrong("are stored in both ways, or f32 after f16")),
        }
        row.rank += slice.rank as u16;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::super::super::params::{ALIGN, Init, ParamLayout, ParamSpec};
    use super::super::super::site::{Projection, Site};
    use super::super::groups::groups;
    use super::*;
    use crate::kernels::optimizer::Group;

    const WIDTHS: (usize, usize) = (48, 48);

    fn spec(name: &str, rank: usize, trainable: bool, adjacent: bool, padding: usize) -> ParamSpec {
        let (transposed, width) = (name.ends_with('B'), WIDTHS.0);
        let shape = if transposed { vec![width, rank] } else { vec![rank, width] };
        let name = name.to_owned();
        ParamSpec {
            name,
            shape,
            transposed,
            offset: 0,
            adjacent,
            padding: padding * width,
            init: Init::Zeros,
            lr_multiplier: 1.0,
            weight_decay: true,
            trainable,
            storage: Storage::F32,
        }
    }

    /// One site with a slot of three ranks, of which the trainable slice fills two, and frozen slices of ranks 1 and 2 after it.
    fn layout() -> AdapterLayout {
        stored([Storage::F32; 2])
    }

    /// The same with the frozen slices stored like this.
    fn stored([old, oldest]: [Storage; 2]) -> AdapterLayout {
        let mut params = ParamLayout::default();
        let mut stack = |half: &str| {
            let trained = params.push(spec(&format!("new.{half}"), 2, true, false, 1));
            [
                trained,
                params.push(ParamSpec { storage: old, ..spec(&format!("old.{half}"), 1, false, true, 0) }),
                params.push(ParamSpec { storage: oldest, ..spec(&format!("oldest.{half}"), 2, false, true, 0) }),
            ]
        };
        let (a, b) = (stack("A"), stack("B"));
        let slice = |i: usize, rank: usize| Slice { a: a[i], b: b[i], rank, alpha: 4.0, scale: 2.0 };
        let site = SiteAdapter::new(Site { layer: 0, projection: Projection::Q }, vec![slice(0, 2), slice(1, 1), slice(2, 2)]);
        let (norms, embeddings, experts) = (Vec::new(), None, None);
        AdapterLayout { sites: vec![site], params, norms, embeddings, dropout: 0.0, half: false, rslora: false, blocks: 1, experts }
    }

    fn row(layout: &AdapterLayout) -> std::result::Result<SiteRow, String> {
        site_row(layout, &layout.sites[0], &Places::at(layout, 1000, 500))
    }

    #[test]
    fn slices_side_by_side_are_one_product() {
        let layout = layout();
        let a_words = (6 * 48usize).next_multiple_of(ALIGN);
        let grad_b = (3 * 48usize).next_multiple_of(ALIGN);
        let (offsets, words) = layout.params.gradient_offsets();
        assert_eq!((layout.params.words, words), (2 * a_words, 2 * grad_b));
        let expected = SiteRow {
            rank: 5,
            half: 0,
            a_offset: 1000 + 48,
            b_offset: (1000 + a_words + 48) as u32,
            grad_a_offset: 500 + 48,
            grad_b_offset: (500 + grad_b + 48) as u32,
            train_begin: 0,
            train_end: 2,
            scale: 2.0,
        };
        assert_eq!(row(&layout), Ok(expected));
        // The optimizer covers the slot, unused row included, and no word of a frozen slice.
        let group = |begin, grad_begin| Group { begin, grad_begin, len: 3 * 48, lr_multiplier: 1.0, decay: 1.0 };
        assert_eq!(groups(&layout.params.specs, &offsets), [group(0, 0), group(a_words, grad_b)]);
    }

    #[test]
    fn factors_train_alone_and_what_is_no_stack_is_refused() {
        let mut rac = layout();
        rac.params.specs[0].trainable = false;
        let found = row(&rac).expect("a row");
        assert_eq!((found.grad_a_offset, found.grad_b_offset, found.train_end), (NO_GRADIENT, 500 + 48, 2));
        let refused = |change: &dyn Fn(&mut AdapterLayout), why: &str| {
            let mut other = layout();
            change(&mut other);
            let problem = row(&other).expect_err("refused");
            assert!(problem.contains(why), "{problem}");
        };
        refused(&|l| l.sites[0].slices[1].scale = 1.0, "different scales");
        refused(&|l| l.sites[0].slices.swap(1, 2), "not rows of one stack");
        refused(&|l| l.sites[0].slices.clear(), "are none");
        refused(&|l| [2, 5].iter().for_each(|i| l.params.specs[*i].trainable = true), "frozen ones between");
    }

    #[test]
    fn the_last_slices_may_be_f16() {
        let halves = |storage| row(&stored(storage)).map(|row| (row.rank, row.half));
        assert_eq!(halves([Storage::F16; 2]), Ok((5, 3)));
        assert_eq!(halves([Storage::F32, Storage::F16]), Ok((5, 2)));
        assert!(halves([Storage::F16, Storage::F32]).expect_err("refused").contains("f32 after f16"));
        let words = |storage| stored(storage).params.words;
        assert_eq!(words([Storage::F16; 2]), 2 * (3 * 48 + 3 * 24usize).next_multiple_of(ALIGN));
        assert!(words([Storage::F16; 2]) < words([Storage::F32; 2]));
    }

    #[test]
    fn parallel_trainable_slices_are_updated_together() {
        let mut all = layout();
        all.params.specs.iter_mut().for_each(|spec| spec.trainable = true);
        let found = row(&all).expect("a row");
        assert_eq!((found.train_begin, found.train_end), (0, 5));
        let (offsets, words) = all.params.gradient_offsets();
        assert_eq!(words, all.params.words);
        let [group] = groups(&all.params.specs, &offsets)[..] else { unreachable!("one group") };
        assert_eq!((group.begin, group.grad_begin, group.len), (0, 0, words / 2 + 6 * 48));
    }
}
