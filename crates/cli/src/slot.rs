//! `eve slot`: which slot of a disk image boots.

use std::path::PathBuf;

use builder::image::{self, SlotMark};

use crate::out::{self, OrAdvise, WrongUse};

/// Show or set which slot of a disk image boots
///
/// A node has two slots, IMGA and IMGB. The partition table says which one boots, whether it is on
/// trial and whether it ever proved itself; an installer's INSTALLER partition has the same marks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the slots: their marks, and the version of the image in them
    Show {
        /// A raw disk image, or a disk
        image: PathBuf,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Set the marks of one or both slots in one step
    Set {
        /// A raw disk image, or a disk
        image: PathBuf,
        /// IMGA or IMGB, and active, updating (tried once at the next boot), inprogress or unused
        #[arg(required = true, value_name = "SLOT=MARK", value_parser = mark)]
        marks: Vec<(String, SlotMark)>,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Show { image, json } => {
            let slots = image::slots(&image).or_advise()?;
            if json {
                return out::json(&slots);
            }
            let rows: Vec<Vec<String>> = slots
                .iter()
                .map(|s| {
                    let (mark, proved) = (s.mark.map_or("other", SlotMark::name), s.successful);
                    let proved = if proved { "yes" } else { "no" };
                    let version = s.version.clone().unwrap_or_else(|| "empty".to_owned());
                    let (priority, tries) = (s.priority.to_string(), s.tries.to_string());
                    let size = s.size.to_string();
                    let name = s.name.clone();
                    vec![name, mark.to_owned(), priority, tries, proved.to_owned(), size, version]
                })
                .collect();
            let head = ["slot", "mark", "priority", "tries", "proved", "size", "image"];
            out::table(&head, &rows);
        }
        What::Set { image, marks } => image::set_slots(&image, &marks).or_advise()?,
    }
    Ok(())
}

fn mark(text: &str) -> Result<(String, SlotMark), WrongUse> {
    let known = SlotMark::ALL.map(SlotMark::name).join(", ");
    let pair = text.split_once('=').and_then(|(slot, mark)| {
        let mark = SlotMark::ALL.into_iter().find(|m| m.name() == mark)?;
        Some((slot.to_owned(), mark))
    });
    pair.ok_or_else(|| WrongUse(format!("it is not SLOT=MARK with one of the marks {known}")))
}
