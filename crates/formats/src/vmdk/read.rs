//! Reading either kind.

use std::io::{Read, Seek, SeekFrom};

use super::{AT_END, FORMAT, HEADER, Header, SECTOR};
use crate::disk::{Disk, Error, Map, Mapped, read_exact_at, read_words};

/// The last sectors of a streamed image: a marker, the footer, and a marker that ends all.
const FOOTER_FROM_END: u64 = 2 * SECTOR;

/// Opens the disk in an image.
pub fn open<F: Read + Seek>(mut file: F) -> Result<impl Disk, Error> {
    let mut header = header_at(&mut file, 0)?;
    if header.directory == AT_END {
        let length = file.seek(SeekFrom::End(0)).map_err(Error::read(FORMAT, 0))?;
        let at = length.saturating_sub(FOOTER_FROM_END);
        let footer = header_at(&mut file, at)?;
        if footer.directory == AT_END || (footer.size, footer.grain) != (header.size, header.grain)
        {
            return Err(Error::Damaged { format: FORMAT, what: "footer", at });
        }
        header = footer;
    }
    let grains = header.size.0.div_ceil(header.grain.0);
    let tables = grains.div_ceil(header.per_table.into());
    let directory = read_words(&mut file, FORMAT, header.directory * SECTOR, tables)?;
    let mut places = Vec::new();
    for table in directory {
        let count = u64::from(header.per_table).min(grains - places.len() as u64);
        if table == 0 {
            let all = places.len() + usize::try_from(count).unwrap_or(0);
            places.resize(all, 0);
        } else {
            places.extend(read_words(&mut file, FORMAT, u64::from(table) * SECTOR, count)?);
        }
    }
    // 1 stands for a grain that is zero; no grain lies in the sector of the header's text.
    for place in &mut places {
        *place = if *place <= 1 { 0 } else { *place };
    }
    Mapped::new(
        file,
        Map {
            format: FORMAT,
            size: header.size.0,
            block: header.grain.0,
            places,
            base: SECTOR, // entry 1 would be the second sector
            unit: SECTOR,
            deflated: header.compressed,
        },
    )
}

fn header_at<F: Read + Seek>(file: &mut F, at: u64) -> Result<Header, Error> {
    let length = file.seek(SeekFrom::End(0)).map_err(Error::read(FORMAT, at))?;
    let here = length.saturating_sub(at).min(HEADER as u64);
    let mut head = vec![0; usize::try_from(here).unwrap_or(HEADER)];
    read_exact_at(file, at, &mut head).map_err(Error::read(FORMAT, at))?;
    Ok(Header::parse(&head)?)
}
