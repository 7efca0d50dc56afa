//! Command lines with places for parameters. There is no shell: each element becomes exactly one argument,
//! whatever its parameters hold.
//!
//! `{name}` stands for a parameter's value. An element that names a parameter without a value is left out. The
//! first element is the program, an absolute path without places.

use super::{MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, Parameters, schema::Schema};
use crate::bounded::{List, Text};

/// A command line as it is run: the program and its arguments.
pub type Arguments = List<Text<MAX_ARGUMENT_BYTES>, MAX_ARGUMENTS>;

/// A command line with places for parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Vec<Part>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Parameter(String),
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No elements, or too many.
    #[error("must have 1 to {MAX_ARGUMENTS} elements")]
    Length,
    /// The program is no plain absolute path.
    #[error("must begin with the absolute path of a program, without {{…}}, // and ..")]
    Program,
    /// A brace without its partner, or around what is no name.
    #[error("element {0}: {{ and }} stand around the name of a parameter and nowhere else")]
    Braces(usize),
    /// The schema has no such parameter.
    #[error("element {index}: {name} is not in parameter_schema")]
    Unknown {
        /// Counted from 0.
        index: usize,
        /// The name.
        name: String,
    },
    /// An element is too long, or holds control characters.
    #[error("element {0}: must have at most {MAX_ARGUMENT_BYTES} bytes and no control characters")]
    Element(usize),
}

/// Why no command line is made of these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// An argument is too long.
    #[error("an argument would have more than {MAX_ARGUMENT_BYTES} bytes")]
    TooLong,
    /// An empty value lets a `-` that was written behind it lead.
    #[error("element {0} would become an option")]
    BecomesOption(usize),
}

impl Template {
    /// Reads the elements.
    pub fn parse<S: AsRef<str>>(elements: &[S], schema: &Schema) -> Result<Self, TemplateError> {
        if elements.is_empty() || elements.len() > MAX_ARGUMENTS {
            return Err(TemplateError::Length);
        }
        if !is_program(elements[0].as_ref()) {
            return Err(TemplateError::Program);
        }
        let parse = |(index, element): (usize, &S)| parse_element(index, element.as_ref(), schema);
        elements.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The command line with these values. An argument is an option only where it was written as one.
    pub fn render(&self, parameters: &Parameters) -> Result<Arguments, RenderError> {
        let value = |name: &str| parameters.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value);
        let mut arguments = Vec::new();
        for (index, element) in self.0.iter().enumerate() {
            let text = element.iter().map(|part| match part {
                Part::Literal(text) => Some(text.clone()),
                Part::Parameter(name) => value(name).map(ToString::to_string),
            });
            if let Some(text) = text.collect::<Option<String>>() {
                if text.starts_with('-') && !is_option(element) {
                    return Err(RenderError::BecomesOption(index));
                }
                arguments.push(Text::try_from(text).map_err(|_| RenderError::TooLong)?);
            }
        }
        List::try_from(arguments).map_err(|_| RenderError::TooLong)
    }
}

/// True where the element begins with a `-` whatever the values are.
fn is_option(element: &[Part]) -> bool {
    let first = element.iter().find(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
    matches!(first, Some(Part::Literal(text)) if text.starts_with('-'))
}

/// True for an absolute path that says where it leads.
pub fn is_program(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= MAX_ARGUMENT_BYTES
        && !path.contains(['{', '}'])
        && !path.chars().any(char::is_control)
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

fn parse_element(index: usize, text: &str, schema: &Schema) -> Result<Vec<Part>, TemplateError> {
    if text.len() > MAX_ARGUMENT_BYTES || text.chars().any(char::is_control) {
        return Err(TemplateError::Element(index));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or(TemplateError::Braces(index))?;
        if before.contains('}') || name.contains('{') || name.is_empty() {
            return Err(TemplateError::Braces(index));
        }
        if !schema.has(name) {
            return Err(TemplateError::Unknown { index, name: name.to_owned() });
        }
        parts.push(Part::Literal(before.to_owned()));
        parts.push(Part::Parameter(name.to_owned()));
        rest = behind;
    }
    if rest.contains('}') {
        return Err(TemplateError::Braces(index));
    }
    parts.push(Part::Literal(rest.to_owned()));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "unit": {"type": "string", "pattern": "[a-z. ;$]+"},
            "lines": {"type": "integer", "maximum": 10},
        }}))
        .unwrap()
    }

    fn render(elements: &[&str], values: serde_json::Value) -> Vec<String> {
        let schema = schema();
        let parameters = schema.read(values.as_object().unwrap()).unwrap();
        let template = Template::parse(elements, &schema).unwrap();
        template.render(&parameters).unwrap().iter().map(|argument| argument.to_string()).collect()
    }

    #[test]
    fn each_element_is_one_argument_whatever_it_holds() {
        let elements = ["/bin/x", "--unit={unit}", "-n", "{lines}", "a{unit}b{lines}"];
        let hostile = json!({"unit": "a; rm $x", "lines": 3});
        assert_eq!(render(&elements, hostile), ["/bin/x", "--unit=a; rm $x", "-n", "3", "aa; rm $xb3"]);
    }

    #[test]
    fn an_element_without_its_value_is_left_out() {
        assert_eq!(render(&["/bin/x", "--unit={unit}", "{lines}"], json!({"lines": 1})), ["/bin/x", "1"]);
    }

    #[test]
    fn an_empty_value_makes_no_option_of_what_follows_it() {
        let text = json!({"type": "string", "pattern": ".*", "minLength": 0});
        let schema = Schema::parse(&json!({"type": "object", "properties": {"a": text}})).unwrap();
        let render = |element: &str, value: &str| {
            let parameters = schema.read(json!({ "a": value }).as_object().unwrap()).unwrap();
            Template::parse(&["/x", element], &schema).unwrap().render(&parameters).map(|all| all[1].to_string())
        };
        assert_eq!(render("{a}-rf", "x"), Ok("x-rf".to_owned()));
        assert_eq!(render("-n{a}", ""), Ok("-n".to_owned()));
        for element in ["{a}-rf", "{a}{a}-"] {
            assert_eq!(render(element, ""), Err(RenderError::BecomesOption(1)), "{element}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let schema = schema();
        let parse = |elements: &[&str]| Template::parse(elements, &schema).unwrap_err();
        assert_eq!(parse(&[]), TemplateError::Length);
        for program in ["df", "/bin/../x", "//bin/x", "/bin/{unit}", "/", "/bin/", "/bin\n/x", "./x", ""] {
            assert_eq!(parse(&[program]), TemplateError::Program, "{program:?}");
        }
        for element in ["{unit", "unit}", "{}", "{{unit}}", "}{"] {
            assert_eq!(parse(&["/x", element]), TemplateError::Braces(1), "{element}");
        }
        assert_eq!(parse(&["/x", "{other}"]), TemplateError::Unknown { index: 1, name: "other".to_owned() });
        assert_eq!(parse(&["/x", "a\nb"]), TemplateError::Element(1));
    }
}
