//! One plot: lines over time, or over the share of a distribution, as inline SVG.
//!
//! Owns: the axes and their words. Ink and grid have colours of their own, by which the page's
//! style finds and changes them.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// What the style sheet knows them by.
pub const INK: &str = "#222831";
pub const GRID: &str = "#D8DCE2";
const INK_COLOR: RGBColor = RGBColor(0x22, 0x28, 0x31);
const GRID_COLOR: RGBColor = RGBColor(0xd8, 0xdc, 0xe2);
/// Readable on white and on black.
const COLORS: [RGBColor; 7] = [
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0xe0, 0x7b, 0x00),
    RGBColor(0x1f, 0x9d, 0x55),
    RGBColor(0xd6, 0x45, 0x45),
    RGBColor(0x8a, 0x63, 0xe8),
    RGBColor(0x0e, 0x9a, 0xa7),
    RGBColor(0xc2, 0x38, 0x8f),
];
const SIZE: (u32, u32) = (560, 230);
/// Points that are further apart have nothing between them.
const GAP_SECS: f64 = 2.5;
/// A line of more points needs no dots.
const DOTTED_MAX: usize = 120;

pub struct Plot {
    pub title: String,
    /// What the y axis counts.
    pub unit: Unit,
    pub across: Across,
    /// Where the time axis ends.
    pub secs: f64,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    Bytes,
    /// On a logarithmic axis: the worst is often a thousand times the middle.
    Millis,
    Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    Time,
    /// Of a share, how often ten fits into what is missing to the whole: 90 % is 1, 99 % is 2.
    Nines,
}

type Failed = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Plot {
    /// There is a line to be drawn.
    pub fn has_lines(&self) -> bool {
        self.lines.iter().any(|line| line.points.len() > 1)
    }

    /// The name of each line with its colour.
    pub fn legend(&self) -> Vec<(&str, String)> {
        let names = self.lines.iter().zip(COLORS.iter().cycle());
        names
            .map(|(line, RGBColor(red, green, blue))| {
                (
                    line.name.as_str(),
                    format!("#{red:02X}{green:02X}{blue:02X}"),
                )
            })
            .collect()
    }

    pub fn svg(&self) -> Result<String, Failed> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            self.draw(&area)?;
            area.present()?;
        }
        // Inline SVG needs no name space; the style sheet gives it its size.
        let size = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
        let svg = svg.replacen(&size, "", 1);
        Ok(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1))
    }

    fn draw(&self, area: &Area) -> Result<(), Failed> {
        let xs = || self.points().map(|(x, _)| x);
        let ys = || self.points().map(|(_, y)| y);
        let most = xs().fold(0.0, f64::max);
        let (left, right) = match self.across {
            Across::Time => (0.0, self.secs.max(most)),
            Across::Nines => (xs().fold(most, f64::min), most),
        };
        let across = left..right.max(left + 1e-9);
        let highest = ys().fold(0.0, f64::max);
        let mut builder = self.builder(area);
        if self.unit == Unit::Millis {
            let positive = ys().filter(|y| *y > 0.0);
            // Nobody wants to see how far below a hundredth something was.
            let lowest = positive.fold(highest, f64::min).max(1e-2);
            let bottom = 10_f64.powf(lowest.log10().floor());
            let top = 10_f64.powf(highest.max(1e-2).log10().ceil());
            let up = (bottom..top.max(bottom * 10.0)).log_scale();
            let chart = builder.build_cartesian_2d(across, up)?;
            self.fill(chart, highest, |y| y.max(bottom))
        } else {
            let scale = self.unit.scale(highest);
            let top = if highest > 0.0 { highest * 1.05 } else { 1.0 };
            let chart = builder.build_cartesian_2d(across, 0.0..top / scale)?;
            self.fill(chart, highest, |y| y / scale)
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }

    /// Of the nines, the whole ones have labels.
    fn labels(&self) -> usize {
        match self.across {
            Across::Time => 8,
            Across::Nines => self.points().map(|(x, _)| x).fold(1.0, f64::max).ceil() as usize + 1,
        }
    }

    fn builder<'a, 'b>(&self, area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(6)
            .margin_right(24)
            .x_label_area_size(26)
            .y_label_area_size(64);
        builder
    }

    /// The axes, and then the lines, which are drawn as high as `height` says.
    fn fill<Y>(
        &self,
        mut chart: ChartContext<SVGBackend, Cartesian2d<RangedCoordf64, Y>>,
        highest: f64,
        height: impl Fn(f64) -> f64,
    ) -> Result<(), Failed>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let style = ("sans-serif", 14).into_font().color(&INK_COLOR);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID_COLOR)
            .axis_style(INK_COLOR)
            .label_style(style)
            .x_labels(self.labels())
            .y_labels(5)
            .x_label_formatter(&|x| match self.across {
                Across::Time => format!("{} s", number(*x)),
                Across::Nines => nines(*x),
            })
            .y_label_formatter(&|y| self.unit.text(*y, highest))
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let dot = if line.points.len() > DOTTED_MAX { 0 } else { 2 };
            let is_near = |a: &(f64, f64), b: &(f64, f64)| {
                self.across == Across::Nines || b.0 - a.0 <= GAP_SECS
            };
            for piece in line.points.chunk_by(is_near) {
                let points = piece.iter().map(|(x, y)| (*x, height(*y)));
                let series = LineSeries::new(points, color.stroke_width(2).filled());
                chart.draw_series(series.point_size(dot))?;
            }
        }
        Ok(())
    }
}

impl Unit {
    /// What a value is divided by before it is drawn, so that the axis has round numbers.
    fn scale(self, highest: f64) -> f64 {
        match self {
            Unit::Bytes => bytes(highest).0,
            Unit::Count | Unit::Millis | Unit::Share => 1.0,
        }
    }

    fn text(self, value: f64, highest: f64) -> String {
        match self {
            Unit::Count => number(value),
            Unit::Bytes => format!("{} {}", number(value), bytes(highest).1),
            Unit::Millis => format!("{} ms", number(value)),
            Unit::Share => format!("{:.0} %", value * 100.0),
        }
    }
}

/// A share that is `value` nines.
fn nines(value: f64) -> String {
    let digits = (value.ceil() as usize).saturating_sub(2);
    format!("{:.digits$} %", 100.0 * (1.0 - 10_f64.powf(-value)))
}

/// The number as short as it can be read.
fn number(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// The unit in which so many bytes are a short number, and its name.
fn bytes(highest: f64) -> (f64, &'static str) {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let power = (highest.max(1.0).log2() / 10.0) as usize;
    let power = power.min(UNITS.len() - 1);
    (1024_f64.powi(power as i32), UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 2.5, 1500.0, 25_000.0, 2e6].map(number),
            ["0", "2.5", "1500", "25k", "2M"]
        );
        assert_eq!(
            [0.0, 1023.0, 2048.0, 5e7].map(|value| bytes(value).1),
            ["B", "B", "KiB", "MiB"]
        );
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(nines),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn a_plot_of_any_numbers_is_well_formed_and_has_its_axes() {
        let huge = vec![(0.0, 0.0), (1.0, 1e15), (2.0, 1e-9)];
        let flat = vec![(5.0, 0.0), (5.0, 0.0)];
        for points in [huge, flat] {
            for unit in [Unit::Count, Unit::Bytes, Unit::Millis, Unit::Share] {
                for across in [Across::Time, Across::Nines] {
                    let plot = Plot {
                        title: String::new(),
                        unit,
                        across,
                        secs: 3.0,
                        lines: vec![Line {
                            name: "<a>".to_owned(),
                            points: points.clone(),
                        }],
                    };
                    let svg = plot.svg().unwrap();
                    let parsed = roxmltree::Document::parse(&svg).unwrap();
                    let count = |name| {
                        parsed
                            .descendants()
                            .filter(|n| n.has_tag_name(name))
                            .count()
                    };
                    assert!(count("polyline") >= 1 && count("text") >= 1, "{svg}");
                    assert!(!svg.contains("http:"));
                }
            }
        }
    }
}
