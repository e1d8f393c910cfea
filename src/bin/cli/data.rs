//! The data files of a run, read from the disk.

use std::path::Path;

use weblora::Result;
use weblora::formats::ModelFile;
use weblora::text::Tokenizer;
use weblora::train::TrainConfig;
use weblora::train::data::TrainData;
use weblora::train::read::RowFile;

use super::files;
use super::train::needed;

/// The rows to train on and to hold out, and what the user should know about them and about the model. A new run whose chat template asks for the date gets
/// today's.
pub fn read(config: &mut TrainConfig, model: &ModelFile, resumed: bool) -> Result<(TrainData, Vec<String>)> {
    needed("data", config.data.first())?;
    let tokenizer = Tokenizer::of_model(model)?;
    if !resumed {
        config.begin_today(&tokenizer);
    }
    let (train, held_out) = (Files::read(&config.data)?, Files::read(&config.eval_data)?);
    let (data, warnings) = TrainData::read(config, &tokenizer, &train.rows(), &held_out.rows())?;
    Ok((data, model.warnings().iter().cloned().chain(warnings).collect()))
}

/// Paths and what is in them.
struct Files<'a>(Vec<(&'a str, Vec<u8>)>);

impl<'a> Files<'a> {
    fn read(paths: &'a [String]) -> Result<Self> {
        paths.iter().map(|path| Ok((path.as_str(), files::read_rows(Path::new(path))?))).collect::<Result<_>>().map(Self)
    }

    fn rows(&self) -> Vec<RowFile<'_>> {
        self.0.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect()
    }
}
