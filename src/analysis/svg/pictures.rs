//! Which pictures there are.

use super::experts::experts;
use super::page::Page;
use super::panels::{HeatPanel, LinePanel, MARGINS, Series, colour_bar, decimals, legend};
use super::scale::{DISTINCT, DIVERGING, SEQUENTIAL, colour};
use crate::adapters::Projection;
use crate::analysis::median::median;
use crate::analysis::report::{AdapterReport, PairReport, PairSite};
use crate::analysis::site_report::SiteReport;
use crate::analysis::{Grid, Links, ModuleReport, Modules};
use std::collections::HashMap;

/// A picture: the end of its file name, and the SVG.
pub type Picture = (&'static str, String);

/// Every picture of one adapter; those about links where the report has any.
pub fn of_adapter(report: &AdapterReport) -> Vec<Picture> {
    let mut pictures = vec![("spectra.svg", spectra(report)), ("effective-rank.svg", effective_ranks(report))];
    pictures.extend(staircase(report).map(|svg| ("staircase.svg", svg)));
    pictures.extend(link_overlap(report).map(|svg| ("links.svg", svg)));
    pictures.extend(module_scales(report).map(|svg| ("modules.svg", svg)));
    pictures.extend(report.experts.as_ref().map(|own| ("experts.svg", experts(&report.name, own))));
    pictures
}

/// Every picture of two adapters.
pub fn of_pair(report: &PairReport) -> Vec<Picture> {
    vec![("similarity.svg", subspaces(report))]
}

const PANEL: (f64, f64) = (270.0, 210.0);

/// Projections that occur, with their colours.
fn projections<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<(&'static str, &'static str)> {
    let all = Projection::ALL.iter().map(|p| p.short_name()).zip(DISTINCT);
    all.filter(|(p, _)| names.clone().any(|name| name == *p)).collect()
}

fn of<'a>(report: &'a AdapterReport, projection: &'a str) -> impl Iterator<Item = &'a SiteReport> {
    report.sites.iter().filter(move |s| s.projection == projection)
}

/// Singular values of every layer, a panel per projection, coloured by depth.
pub fn spectra(report: &AdapterReport) -> String {
    let found = projections(report.sites.iter().map(|s| s.projection.as_str()));
    let deepest = report.sites.iter().map(|s| s.layer).max().unwrap_or(0);
    let title = format!("Singular values of the update: {}", report.name);
    let mut page = Page::new(found.len(), 4, PANEL, &title, "one line per layer; a flat line uses all its directions alike");
    // Not the ends of the palette, which vanish on one of the papers.
    let shade = |layer: usize| colour(SEQUENTIAL, 0.15 + 0.7 * layer as f64 / deepest.max(1) as f64);
    // Beyond seven powers of ten below the largest there is only rounding.
    let values = || report.sites.iter().flat_map(|s| &s.spectrum.singular_values).copied();
    let largest = values().fold(0.0, f64::max);
    let shown = |v: &f64| *v > 1e-7 * largest;
    let y_range = values().filter(shown).reduce(f64::min).map(|smallest| (smallest, largest));
    for (i, (projection, _)) in found.iter().enumerate() {
        let line = |s: &SiteReport| Series {
            name: s.site.clone(),
            colour: shade(s.layer),
            dashed: false,
            points: s.spectrum.singular_values.iter().filter(|v| shown(v)).enumerate().map(|(k, v)| ((k + 1) as f64, *v)).collect(),
        };
        let panel = LinePanel {
            title: (*projection).to_owned(),
            x_label: "index",
            y_label: "singular value",
            series: of(report, projection).map(line).collect(),
            log_y: true,
            y_range,
            dots: false,
        };
        panel.draw(page.place(i), &mut page.canvas);
    }
    let depths = [(true, "first layer", 0), (deepest > 1, "middle", deepest / 2), (deepest > 0, "last layer", deepest)];
    let names: Vec<(&str, String)> = depths.into_iter().filter(|d| d.0).map(|(_, name, layer)| (name, shade(layer))).collect();
    let names: Vec<(&str, &str, bool)> = names.iter().map(|(name, colour)| (*name, colour.as_str(), false)).collect();
    legend(&mut page.canvas, page.legend, &names);
    page.canvas
        .finish(&title, "Line charts of singular values by index on a logarithmic scale, one panel per projection, one line per layer.")
}

/// Effective rank by layer and projection.
pub fn effective_ranks(report: &AdapterReport) -> String {
    let found = projections(report.sites.iter().map(|s| s.projection.as_str()));
    let layers = report.sites.iter().map(|s| s.layer + 1).max().unwrap_or(1);
    let mut ranks: HashMap<(usize, &str), Vec<f64>> = HashMap::new();
    report.sites.iter().for_each(|s| ranks.entry((s.layer, s.projection.as_str())).or_default().push(s.spectrum.effective_rank));
    // Of a block with experts the middle one.
    let value = |layer: usize, projection: &'static str| median(ranks.get(&(layer, projection))?.iter().copied());
    let most = report.sites.iter().map(|s| s.spectrum.effective_rank).fold(1.0, f64::max);
    let title = format!("Effective rank of the update: {}", report.name);
    let size = (MARGINS + 46.0 * found.len() as f64, 64.0 + 15.0 * layers as f64);
    let mut page = Page::new(1, 1, (size.0.max(300.0), size.1.max(160.0)), &title, "exp of the entropy of the energies σ²/Σσ²");
    let panel = HeatPanel {
        title: String::new(),
        x_label: "projection",
        y_label: "layer",
        columns: found.iter().map(|(p, _)| (*p).to_owned()).collect(),
        rows: (0..layers).map(|l| l.to_string()).collect(),
        values: (0..layers).map(|l| found.iter().map(|(p, _)| value(l, p)).collect()).collect(),
        range: (1.0_f64.min(most), most),
        palette: SEQUENTIAL,
        decimals: 1,
    };
    panel.draw(page.place(0), &mut page.canvas);
    colour_bar(&mut page.canvas, page.legend, SEQUENTIAL, panel.range, "effective rank");
    page.canvas.finish(&title, "A heat map of the effective rank, layers downwards, projections to the right.")
}

/// Effective rank of the first 1, 2, … links together, medians over layers; `None` without several links.
pub fn staircase(report: &AdapterReport) -> Option<String> {
    let linked = || report.sites.iter().filter_map(|s| Some((s, s.links.as_ref()?)));
    let most = linked().map(|(_, l)| l.count()).max().filter(|n| *n > 1)?;
    let found = projections(linked().map(|(s, _)| s.projection.as_str()).collect::<Vec<_>>().into_iter());
    let point = |projection: &str, n: usize| {
        let ranks = linked().filter(|(s, _)| s.projection == projection).filter_map(|(_, l)| Some(l.so_far(n)?.effective_rank));
        median(ranks).map(|r| ((n + 1) as f64, r))
    };
    let mut series: Vec<Series> = found
        .iter()
        .map(|(p, colour)| Series {
            name: (*p).to_owned(),
            colour: (*colour).to_owned(),
            dashed: false,
            points: (0..most).filter_map(|n| point(p, n)).collect(),
        })
        .collect();
    let bound = |n: usize| {
        let ranks =
            |l: &Links| l.numbers.iter().zip(&l.spectra).filter(|(m, _)| **m <= n).map(|(_, s)| s.singular_values.len() as f64).sum();
        let sums = linked().map(|(_, l)| ranks(l));
        median(sums).map(|r| ((n + 1) as f64, r))
    };
    let bound = Series { name: "rank sum".into(), colour: "#b0b0b0".into(), dashed: true, points: (0..most).filter_map(bound).collect() };
    series.push(bound);
    let title = format!("Effective rank as the chain grows: {}", report.name);
    let mut page = Page::new(1, 1, (540.0, 300.0), &title, "of the sum of the first links, median over layers");
    let entries: Vec<(&str, &str, bool)> = series.iter().map(|s| (s.name.as_str(), s.colour.as_str(), s.dashed)).collect();
    legend(&mut page.canvas, page.legend, &entries);
    let panel =
        LinePanel { title: String::new(), x_label: "links", y_label: "effective rank", log_y: false, y_range: None, dots: true, series };
    panel.draw(page.place(0), &mut page.canvas);
    Some(page.canvas.finish(&title, "A line chart of cumulative effective rank by number of links, one line per projection."))
}

/// How links relate in pairs, means over all sites; `None` without several links.
pub fn link_overlap(report: &AdapterReport) -> Option<String> {
    let linked = || report.sites.iter().filter_map(|s| s.links.as_ref());
    let n = linked().map(Links::count).max().filter(|n| *n > 1)?;
    let title = format!("Overlap of links: {}", report.name);
    let mut page = Page::new(3, 3, (250.0, 250.0), &title, "means over sites; φ is 1 for the same subspace, 0 for orthogonal ones");
    let names: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    type Pick = fn(&Links) -> &Grid;
    let kinds: [(&str, Pick, (f64, f64)); 3] = [
        ("φ, outputs (left)", |l| &l.overlap_left, (0.0, 1.0)),
        ("φ, inputs (right)", |l| &l.overlap_right, (0.0, 1.0)),
        ("cosine of ΔW", |l| &l.cosine, (-1.0, 1.0)),
    ];
    for (k, (title, pick, range)) in kinds.into_iter().enumerate() {
        let cell = |i: usize, j: usize| mean(linked().filter_map(|l| Some(*pick(l).get(l.place(i)?)?.get(l.place(j)?)?)));
        let panel = HeatPanel {
            title: title.to_owned(),
            x_label: "link",
            y_label: "link",
            columns: names.clone(),
            rows: names.clone(),
            values: (0..n).map(|i| (0..n).map(|j| cell(i, j)).collect()).collect(),
            range,
            palette: if range.0 < 0.0 { DIVERGING } else { SEQUENTIAL },
            decimals: 2,
        };
        panel.draw(page.place(k), &mut page.canvas);
    }
    colour_bar(&mut page.canvas, page.legend, SEQUENTIAL, (0.0, 1.0), "φ");
    colour_bar(&mut page.canvas, (page.legend.0 + 300.0, page.legend.1), DIVERGING, (-1.0, 1.0), "cosine");
    Some(page.canvas.finish(&title, "Heat maps of the overlap of every two links: output subspaces, input subspaces, cosine."))
}

/// Mean |s| of every module and its share of the update, by layer: a panel per projection for each; `None` where no modules are known.
pub fn module_scales(report: &AdapterReport) -> Option<String> {
    let known = || report.sites.iter().filter_map(|s| Some((s, s.modules.as_ref()?)));
    let modules = known().map(|(_, m)| m.each.len()).max()?;
    let found = projections(known().map(|(s, _)| s.projection.as_str()).collect::<Vec<_>>().into_iter());
    let layers = known().map(|(s, _)| s.layer + 1).max()?;
    let columns = found.len().min(4);
    let blocks = found.len().div_ceil(columns);
    let title = format!("Modules of the update: {}", report.name);
    let size = ((MARGINS + 34.0 * modules as f64).max(210.0), (64.0 + 15.0 * layers as f64).max(150.0));
    let mut page =
        Page::new(2 * blocks * columns, columns, size, &title, "mean of |s| over the outputs above, share of the update's norm below");
    type Pick = fn(&ModuleReport) -> f64;
    let largest = |pick: Pick| known().flat_map(|(_, m)| m.each.iter().map(pick)).fold(0.0, f64::max);
    let kinds: [(&str, Pick); 2] = [("mean |s|", |m| m.mean_scale), ("share", |m| m.share)];
    for (block, (name, pick)) in kinds.into_iter().enumerate() {
        let range = (0.0, largest(pick));
        for (i, (projection, _)) in found.iter().enumerate() {
            let own: HashMap<usize, &Modules> = known().filter(|(s, _)| s.projection == *projection).map(|(s, m)| (s.layer, m)).collect();
            let cell = |layer: usize, module: usize| own.get(&layer)?.each.get(module).map(pick);
            let panel = HeatPanel {
                title: format!("{projection}, {name}"),
                x_label: "module",
                y_label: "layer",
                columns: (0..modules).map(|m| m.to_string()).collect(),
                rows: (0..layers).map(|l| l.to_string()).collect(),
                values: (0..layers).map(|l| (0..modules).map(|m| cell(l, m)).collect()).collect(),
                range,
                palette: SEQUENTIAL,
                decimals: decimals(range.1),
            };
            panel.draw(page.place(block * blocks * columns + i), &mut page.canvas);
        }
        let at = (page.legend.0 + 300.0 * block as f64, page.legend.1);
        colour_bar(&mut page.canvas, at, SEQUENTIAL, range, name);
    }
    Some(
        page.canvas
            .finish(&title, "Heat maps of the modules' scales and of their shares of the update, layers downwards, modules to the right."),
    )
}

/// φ(i, j) of two adapters, means over layers: a row of panels for inputs, a row for outputs, a panel per projection.
pub fn subspaces(report: &PairReport) -> String {
    let found = projections(report.sites.iter().map(|s| s.projection.as_str()));
    let title = format!("Subspace similarity φ(i, j): {} and {}", report.first, report.second);
    let mut page = Page::new(2 * found.len(), found.len(), (220.0, 220.0), &title, "means over layers; 1: contained, 0: orthogonal");
    for (side, name) in ["inputs", "outputs"].into_iter().enumerate() {
        for (i, (projection, _)) in found.iter().enumerate() {
            let sites = || report.sites.iter().filter(|s| s.projection == *projection);
            let grid = |s: &'_ PairSite| if side == 0 { s.phi.right.clone() } else { s.phi.left.clone() };
            let grids: Vec<Grid> = sites().map(grid).collect();
            let rows = grids.iter().map(Vec::len).max().unwrap_or(0);
            let columns = grids.iter().filter_map(|g| g.first()).map(Vec::len).max().unwrap_or(0);
            let cell = |i: usize, j: usize| mean(grids.iter().filter_map(|g| Some(*g.get(i)?.get(j)?)));
            let panel = HeatPanel {
                title: format!("{projection}, {name}"),
                x_label: "j of the second",
                y_label: "i of the first",
                columns: (1..=columns).map(|j| j.to_string()).collect(),
                rows: (1..=rows).map(|i| i.to_string()).collect(),
                values: (0..rows).map(|i| (0..columns).map(|j| cell(i, j)).collect()).collect(),
                range: (0.0, 1.0),
                palette: SEQUENTIAL,
                decimals: 2,
            };
            panel.draw(page.place(side * found.len() + i), &mut page.canvas);
        }
    }
    colour_bar(&mut page.canvas, page.legend, SEQUENTIAL, (0.0, 1.0), "φ");
    page.canvas.finish(&title, "Heat maps of subspace similarity by number of leading directions, one panel per projection and side.")
}

fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = numbers.fold((0usize, 0.0), |(n, sum), x| (n + 1, sum + x));
    (count > 0).then(|| sum / count as f64)
}
