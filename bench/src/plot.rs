//! Charts as SVG: bars with their values beside them. Pure.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failed;

const WIDTH: i32 = 860;
/// Where the names end and the axis begins, and where that ends.
const LEFT: i32 = 160;
const RIGHT: i32 = WIDTH - 30;
/// Of the axis, so much is left free for the value of the longest bar.
const FREE: f64 = 0.26;
const TOP: i32 = 50;
const ROW: i32 = 32;
const BAR: i32 = 20;
/// Ticks, and what they count.
const BOTTOM: i32 = 52;
const TITLE_SIZE: i32 = 17;
const TEXT_SIZE: i32 = 13;
const INK: RGBColor = RGBColor(31, 35, 40);
const LINES: RGBColor = RGBColor(222, 226, 230);
/// A bar on a logarithmic axis begins here.
const LOG_BEGIN: f64 = 10.0;

/// Whose bar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Floor,
    Own,
    Other,
}

impl Tone {
    fn color(self) -> RGBColor {
        match self {
            Tone::Floor => RGBColor(140, 149, 159),
            Tone::Own => RGBColor(9, 105, 218),
            Tone::Other => RGBColor(212, 136, 58),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    /// What stands beside it.
    pub label: String,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

/// Horizontal bars, the first one on top.
pub struct Chart {
    pub title: String,
    pub unit: String,
    pub scale: Scale,
    pub bars: Vec<Bar>,
}

impl Chart {
    /// On white, so that it can be read on any page.
    pub fn svg(&self) -> Result<String, Failed> {
        let mut text = String::new();
        let height = self.bottom() + BOTTOM;
        {
            let size = (WIDTH as u32, height as u32);
            let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
            root.fill(&WHITE)?;
            let middle = Pos::new(HPos::Center, VPos::Center);
            write(&root, &self.title, (WIDTH / 2, TOP / 2), TITLE_SIZE, middle)?;
            self.draw_axis(&root)?;
            for (row, bar) in (0..).zip(&self.bars) {
                self.draw_bar(&root, TOP + row * ROW + ROW / 2, bar)?;
            }
            root.present()?;
        }
        Ok(text)
    }

    fn draw_axis(&self, root: &DrawingArea<SVGBackend, Shift>) -> Result<(), Failed> {
        let below = Pos::new(HPos::Center, VPos::Top);
        for tick in self.ticks() {
            let x = self.place(tick);
            root.draw(&PathElement::new([(x, TOP), (x, self.bottom())], LINES))?;
            write(
                root,
                &grouped(tick),
                (x, self.bottom() + 6),
                TEXT_SIZE,
                below,
            )?;
        }
        let unit = match self.scale {
            Scale::Linear => self.unit.clone(),
            Scale::Log => format!("{}, logarithmic", self.unit),
        };
        let at = (i32::midpoint(LEFT, RIGHT), self.bottom() + 28);
        write(root, &unit, at, TEXT_SIZE, below)
    }

    fn draw_bar(
        &self,
        root: &DrawingArea<SVGBackend, Shift>,
        y: i32,
        bar: &Bar,
    ) -> Result<(), Failed> {
        let end = self.place(bar.value);
        let corners = [(LEFT, y - BAR / 2), (end, y + BAR / 2)];
        root.draw(&Rectangle::new(corners, bar.tone.color().filled()))?;
        let before = Pos::new(HPos::Right, VPos::Center);
        write(root, &bar.name, (LEFT - 10, y), TEXT_SIZE, before)?;
        let behind = Pos::new(HPos::Left, VPos::Center);
        write(root, &bar.label, (end + 8, y), TEXT_SIZE, behind)
    }

    fn bottom(&self) -> i32 {
        TOP + ROW * self.bars.len() as i32
    }

    fn most(&self) -> f64 {
        let values = self.bars.iter().map(|bar| bar.value);
        values.fold(0.0, f64::max)
    }

    /// Pixels from the left. What is below the beginning of the axis stands there.
    fn place(&self, value: f64) -> i32 {
        let (value, most) = match self.scale {
            Scale::Linear => (value, self.most()),
            Scale::Log => (decades(value), decades(self.most())),
        };
        let part = (value / most.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        LEFT + (part * (1.0 - FREE) * f64::from(RIGHT - LEFT)) as i32
    }

    fn ticks(&self) -> Vec<f64> {
        let most = self.most();
        let begin = match self.scale {
            Scale::Linear => 0.0,
            Scale::Log => LOG_BEGIN,
        };
        let step = step(most);
        let next = |tick: &f64| match self.scale {
            Scale::Linear => Some(tick + step),
            Scale::Log => Some(tick * 10.0),
        };
        let ticks = std::iter::successors(Some(begin), next);
        ticks.take_while(|&tick| tick <= most).collect()
    }
}

fn decades(value: f64) -> f64 {
    (value.max(LOG_BEGIN) / LOG_BEGIN).log10()
}

/// A round number of which a handful reach `most`.
fn step(most: f64) -> f64 {
    let most = most.max(f64::MIN_POSITIVE);
    let decade = 10_f64.powf(most.log10().floor());
    let steps = [0.2, 0.5, 1.0, 2.0].map(|part| part * decade);
    let is_wide = |step: &&f64| most / **step <= 6.0;
    *steps.iter().find(is_wide).unwrap_or(&decade)
}

/// With a space between thousands.
pub fn grouped(value: f64) -> String {
    if value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn write(
    root: &DrawingArea<SVGBackend, Shift>,
    text: &str,
    at: (i32, i32),
    size: i32,
    anchor: Pos,
) -> Result<(), Failed> {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&INK)
        .pos(anchor);
    root.draw(&Text::new(text, at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, values: &[f64]) -> Chart {
        let bar = |&value: &f64| Bar {
            name: "A < B".to_owned(),
            value,
            label: format!("{value:.1} us"),
            tone: Tone::Other,
        };
        Chart {
            title: "what it costs".to_owned(),
            unit: "us".to_owned(),
            scale,
            bars: values.iter().map(bar).collect(),
        }
    }

    #[test]
    fn a_chart_names_every_bar_and_its_value() {
        let svg = chart(Scale::Linear, &[5.0, 12.5]).svg().unwrap();
        for text in ["what it costs", "A &lt; B", "5.0 us", "12.5 us"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_never_negative() {
        let linear = chart(Scale::Linear, &[100.0, 50.0, 0.0, -3.0]);
        let length = |chart: &Chart, value| chart.place(value) - LEFT;
        assert_eq!(length(&linear, 100.0) / 2, length(&linear, 50.0));
        assert_eq!((length(&linear, 0.0), length(&linear, -3.0)), (0, 0));
        let log = chart(Scale::Log, &[100_000.0, 1000.0]);
        assert_eq!(length(&log, 100_000.0) / 2, length(&log, 1000.0));
        assert_eq!(length(&log, 1.0), 0);
    }

    #[test]
    fn ticks_are_round() {
        let ticks = |scale, most| chart(scale, &[most]).ticks();
        assert_eq!(
            ticks(Scale::Linear, 540.0),
            [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]
        );
        assert_eq!(ticks(Scale::Linear, 2.5), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(ticks(Scale::Log, 139_600.0), [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert_eq!(
            [100_000.0, -564.0, 0.5].map(grouped),
            ["100 000", "-564", "0.5"]
        );
    }
}
