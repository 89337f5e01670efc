//! Losses as a picture of characters.

/// Points of a training (`.`) and of a validation (`o`), over steps; `None` where there are fewer than two steps. `size` is columns and lines of the picture itself.
pub(super) fn plot(train: &[(f64, f64)], valid: &[(f64, f64)], size: (usize, usize)) -> Option<String> {
    let (width, height) = size;
    let finite: Vec<&(f64, f64)> = train.iter().chain(valid).filter(|point| point.1.is_finite()).collect();
    let range = |value: fn(&(f64, f64)) -> f64| {
        let values = finite.iter().map(|point| value(point));
        values.fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
        })
    };
    let ((first, last), (least, most)) = (range(|point| point.0)?, range(|point| point.1)?);
    if first >= last {
        return None;
    }
    let height_of_one = (most - least).max(1e-9);
    let mut cells = vec![vec![' '; width]; height];
    for (points, mark) in [(train, '.'), (valid, 'o')] {
        for (step, loss) in points.iter().filter(|point| point.1.is_finite()) {
            let column = ((step - first) / (last - first) * (width - 1) as f64).round() as usize;
            let row = ((most - loss) / height_of_one * (height - 1) as f64).round() as usize;
            cells[row.min(height - 1)][column.min(width - 1)] = mark;
        }
    }
    let label = |row: usize| most - height_of_one * row as f64 / (height - 1).max(1) as f64;
    let mut picture = String::new();
    for (row, cells) in cells.iter().enumerate() {
        let line: String = cells.iter().collect();
        picture.push_str(format!("{:>8.3} |{line}", label(row)).trim_end());
        picture.push('\n');
    }
    let legend = if valid.is_empty() { ". training loss" } else { ". training loss   o validation loss" };
    let gap = width.saturating_sub(format!("{first}{last}").len());
    picture.push_str(&format!("{:>8} +{}\n{:>10}{first}{:gap$}{last}\n{:>10}{legend}", "", "-".repeat(width), "", "", ""));
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::plot;

    #[test]
    fn losses_fall_from_the_left_to_the_right() {
        let train: Vec<(f64, f64)> = (1..=5).map(|step| (f64::from(step), 4.0 / f64::from(step))).collect();
        let picture = plot(&train, &[(3.0, 2.4), (5.0, f64::NAN)], (9, 5));
        let expected = "   4.000 |.\n   3.200 |\n   2.400 |    o\n   1.600 |  . .\n   0.800 |      . .\n         +---------\n          1       5\n          . training loss   o validation loss";
        assert_eq!(picture.as_deref(), Some(expected));
    }

    #[test]
    fn nothing_is_drawn_of_a_single_step() {
        assert!(plot(&[(1.0, 2.0)], &[], (9, 5)).is_none());
        assert!(plot(&[], &[], (9, 5)).is_none());
    }
}
