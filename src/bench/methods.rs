//! What a method costs beside plain LoRA of the same size: two runs of one model that step in turns.

use serde_json::{Value, json};

use super::probe::median;
use super::record::{CompareRecord, Record};
use super::setup::Bench;
use super::step::{Running, Workload};
use crate::Result;
use crate::adapters::{AdapterConfig, initial_buffer};
use crate::settings::Settings;

/// A pair's name, and the settings of the method and of the LoRA that it is measured against.
type Pair = (&'static str, Value, Value);

fn pairs() -> [Pair; 3] {
    let lora = |rank: u32| json!({"method": "lora", "rank": rank});
    let modules = json!({"method": "multilora", "modules": 3, "rank": 8});
    // The last link of a chain: rank 8 trains beside frozen links of rank 32 together.
    let links = json!({"method": "cola", "links": [8, 8, 8, 8, 8]});
    // Experts against one product of the rank that a token's experts have together, at the same layers.
    let ffn = ["gate", "up", "down"];
    let experts = json!({"method": "mixlora", "experts": 8, "top-k": 2, "rank": 8, "targets": ffn});
    let dense = json!({"method": "lora", "rank": 16, "targets": ffn});
    [
        ("mixlora 8 x r8 top-2 / lora r16", experts, dense),
        ("multilora 3 x r8 / lora r24", modules, lora(24)),
        ("cola 8 + 32 frozen / lora r8", links, lora(8)),
    ]
}

/// Fewest and most rounds, and about how many seconds they may take in all.
const ROUNDS: (usize, usize, f64) = (5, 40, 20.0);

pub(super) async fn run(bench: &mut Bench<'_>, workload: &Workload) -> Result<()> {
    for (name, method, baseline) in pairs() {
        let mut pair = [open(bench, workload, &method).await?, open(bench, workload, &baseline).await?];
        let mut seconds = [Vec::new(), Vec::new()];
        let mut ratios = Vec::new();
        let (mut rounds, mut round) = (ROUNDS.0, 0);
        while round <= rounds {
            let mut times = [0.0; 2];
            // Whoever goes first finds the caches as the other left them, so they take turns at that, too.
            for i in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                (times[i], _) = pair[i].step(bench.gpu).await?;
            }
            if round == 0 {
                let fit = ROUNDS.2 / (times[0] + times[1]).max(1e-6);
                rounds = (fit as usize).clamp(ROUNDS.0, if bench.options.quick { ROUNDS.0 } else { ROUNDS.1 });
            } else {
                ratios.push(times[0] / times[1]);
                seconds.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
            }
            round += 1;
        }
        let [mut own, mut other] = seconds;
        let fastest = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        let of_fastest = fastest(&own) / fastest(&other);
        ratios.sort_by(f64::total_cmp);
        (bench.report)(&Record::Compare(CompareRecord {
            config: workload.name().to_owned(),
            pair: name,
            tokens: workload.rows(),
            ratio: median(&mut ratios),
            of_fastest,
            least: ratios.first().copied().unwrap_or_default(),
            most: ratios.last().copied().unwrap_or_default(),
            ms: median(&mut own) * 1e3,
            baseline_ms: median(&mut other) * 1e3,
            rounds,
        }))?;
    }
    Ok(())
}

async fn open(bench: &mut Bench<'_>, workload: &Workload, settings: &Value) -> Result<Running> {
    let map = settings.as_object().cloned().unwrap_or_default();
    let config = AdapterConfig::read(&mut Settings::new(&map))?;
    let layout = match config.chain()? {
        Some(chain) => chain.layout(&config, workload.model(), chain.links.len() - 1)?,
        None => config.layout(workload.model())?,
    };
    let (mut running, _) = Running::open(bench, workload, &layout).await?;
    running.session.write_values(bench.gpu, 0, &initial_buffer(&layout.params, 0))?;
    // The first step compiles what the driver has left for later.
    running.step(bench.gpu).await?;
    Ok(running)
}
