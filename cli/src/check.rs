//! `burgee check`.

use std::path::Path;

use fleet::finding::Severity;

use crate::Done;
use crate::arguments::Output;
use crate::failure::{Failure, count};
use crate::folder::FolderTree;
use crate::{kubernetes, output};

pub(crate) fn run(dir: &Path, form: Output) -> Done {
    let tree = FolderTree::open(dir)?;
    let mut found = tree.refused.clone();
    found.extend(fleet::repo::check_with(&tree, Some(&kubernetes::schemas()?)));
    found.sort_by(|a, b| (&a.path, a.line, a.column).cmp(&(&b.path, b.line, b.column)));
    match form {
        Output::Json => output::json(&found)?,
        Output::Text => {
            for finding in &found {
                output::text(&format!("{finding}\n"))?;
                if let Some(hint) = &finding.hint {
                    eprintln!("hint: {hint}");
                }
            }
        }
    }
    let count = count(&found, &dir.display().to_string());
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Failure::Content(count));
    }
    eprintln!("{count}");
    Ok(())
}
