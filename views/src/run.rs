//! Makes rows of resources.
//!
//! The parts of a view multiply: for each row of the first one there are all rows of the second one. So what is left to do is a
//! list on the stack, and a row is complete when nothing is left. Each level has an arena of its own, which is emptied for each
//! of its items: a product of any length needs the memory of one row.

use crate::cell::Cell;
use crate::error::{Problem, RowError};
use crate::plan::{Each, Node, Output, Over, Part, View, Where};
use fhir_bulk_codec::jsonb::EMPTY_OBJECT;
use fhir_bulk_paths::arena::{Arena, List};
use fhir_bulk_paths::item::{Item, Resource, Value};
use fhir_bulk_paths::model::TypeId;
use fhir_bulk_paths::program::{Program, Scope, Within};
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;

/// Takes rows.
pub trait Rows {
    /// Takes a row, with a cell for each column. Breaks to end the view.
    fn row(&mut self, resource: &Resource<'_>, cells: &[Cell<'_>]) -> ControlFlow<()>;

    /// Is called now and then, also while there are no rows. Breaks to end the view.
    fn tick(&mut self) -> ControlFlow<()> {
        Continue(())
    }
}

/// After so many items there is a tick.
const TICK: u32 = 256;

/// Resources under a view, and the memory that is kept from one to the next.
pub struct Resources {
    view: Rc<View>,
    bases: Vec<String>,
    interrupt: fn(),
    arenas: Vec<Arena>,
    /// Items since the last tick.
    items: u32,
}

impl Resources {
    /// `bases` are the urls of servers whose resources are ours. `interrupt` is called often, at least for each cell; it may
    /// unwind.
    pub fn new(view: Rc<View>, bases: Vec<String>, interrupt: fn()) -> Resources {
        let arenas = (0..view.levels + 2).map(|_| Arena::new()).collect();
        Resources { view, bases, interrupt, arenas, items: 0 }
    }

    /// The view.
    pub fn view(&self) -> &Rc<View> {
        &self.view
    }

    /// Passes the rows of a resource of the view's type. Breaks when `rows` broke.
    ///
    /// # Errors
    /// A column with several values, a `where` that is not a boolean, too much work for one resource. Rows may have been passed
    /// before.
    pub fn rows(&mut self, resource: Resource<'_>, rows: &mut dyn Rows) -> Result<ControlFlow<()>, RowError> {
        let Resources { view, bases, interrupt, arenas, items } = self;
        let mut run =
            Run { view, bases, interrupt: *interrupt, resource, rows, items: *items, error: None, stopped: false };
        let done = run.resource(arenas);
        *items = run.items;
        match run.error {
            Some(error) => Err(error),
            None if run.stopped => Ok(Break(())),
            None => {
                debug_assert!(done.is_continue());
                Ok(Continue(()))
            }
        }
    }
}

struct Run<'r> {
    view: &'r View,
    bases: &'r [String],
    interrupt: fn(),
    resource: Resource<'r>,
    rows: &'r mut dyn Rows,
    items: u32,
    error: Option<RowError>,
    stopped: bool,
}

/// What is left to do: parts that multiply, of an item, and what comes after them.
#[derive(Clone, Copy)]
struct Todo<'a> {
    parts: &'a [Part],
    at: Place<'a>,
    next: Option<&'a Todo<'a>>,
}

/// An item, its number, and memory for what is computed of it.
#[derive(Clone, Copy)]
struct Place<'a> {
    this: Item<'a>,
    row_index: i64,
    arena: &'a Arena,
}

/// Cells of a row.
#[derive(Clone, Copy)]
struct Frame<'a> {
    outputs: &'a [Output],
    cells: &'a [Cell<'a>],
    outer: Option<&'a Frame<'a>>,
}

/// The item of a row of nulls.
const NOTHING: Item<'static> = Item { value: Value::Root(EMPTY_OBJECT), type_id: TypeId::UNKNOWN };

impl<'r> Run<'r> {
    fn resource(&mut self, arenas: &mut [Arena]) -> ControlFlow<()> {
        let this = self.resource.item();
        if let Some((arena, _)) = arenas.split_first_mut() {
            arena.reset();
            let at = Place { this, row_index: 0, arena };
            for condition in &self.view.wheres {
                if !self.holds(condition, at)? {
                    return Continue(());
                }
            }
        }
        self.enter(&self.view.root, this, 0, None, None, arenas)
    }

    /// Makes the columns of a node for an item, and then all that is left to do.
    fn enter<'a>(
        &mut self,
        node: &'a Node,
        this: Item<'a>,
        row_index: i64,
        next: Option<&'a Todo<'a>>,
        outer: Option<&'a Frame<'a>>,
        arenas: &mut [Arena],
    ) -> ControlFlow<()>
    where
        'r: 'a,
    {
        self.tick()?;
        // There are as many as the view has levels.
        let Some((arena, inner)) = arenas.split_first_mut() else { return Continue(()) };
        arena.reset();
        let at = Place { this, row_index, arena };
        let cells = self.found(node, at)?;
        let frame = Frame { outputs: &node.outputs, cells, outer };
        let todo = Todo { parts: &node.parts, at, next };
        self.go_on(Some(&todo), Some(&frame), inner)
    }

    /// Does the first of what is left to do, and the rest for each of its rows.
    fn go_on<'a>(
        &mut self,
        todo: Option<&'a Todo<'a>>,
        frame: Option<&'a Frame<'a>>,
        arenas: &mut [Arena],
    ) -> ControlFlow<()>
    where
        'r: 'a,
    {
        let Some(todo) = todo else { return self.complete(frame, arenas) };
        let Some((part, parts)) = todo.parts.split_first() else { return self.go_on(todo.next, frame, arenas) };
        let rest = Todo { parts, ..*todo };
        match part {
            Part::Union(branches) => {
                let Place { this, row_index, .. } = todo.at;
                branches.iter().try_for_each(|node| self.enter(node, this, row_index, Some(&rest), frame, arenas))
            }
            Part::Each(each) => match &each.over {
                Over::Items(program) => self.each(each, program, todo.at, &rest, frame, arenas).map_continue(|_| ()),
                Over::ItemsOrNull(program, outputs) => {
                    match self.each(each, program, todo.at, &rest, frame, arenas)? {
                        0 => self.nulls(outputs, &rest, frame, arenas),
                        _ => Continue(()),
                    }
                }
                Over::Repeat(programs) => self.repeat(each, programs, todo.at, &rest, frame, arenas),
            },
        }
    }

    /// Rows of each item; how many items there were.
    fn each<'a>(
        &mut self,
        each: &'a Each,
        program: &'a Program,
        at: Place<'a>,
        rest: &'a Todo<'a>,
        frame: Option<&'a Frame<'a>>,
        arenas: &mut [Arena],
    ) -> ControlFlow<(), i64>
    where
        'r: 'a,
    {
        let scope = self.scope(at);
        let mut count = 0;
        let done = program.run(&scope, at.this, &mut |item| {
            let row_index = count;
            count += 1;
            self.enter(&each.node, item, row_index, Some(rest), frame, arenas)
        });
        self.ended(&scope, done, &each.element)?;
        Continue(count)
    }

    /// Rows of each item that the paths find, then of what they find in it, before the next one.
    fn repeat<'a>(
        &mut self,
        each: &'a Each,
        programs: &'a [Program],
        at: Place<'a>,
        rest: &'a Todo<'a>,
        frame: Option<&'a Frame<'a>>,
        arenas: &mut [Arena],
    ) -> ControlFlow<()>
    where
        'r: 'a,
    {
        let mut open = List::new(at.arena);
        self.children(each, programs, at, &mut open)?;
        let mut row_index = 0;
        while let Some(this) = open.pop() {
            self.enter(&each.node, this, row_index, Some(rest), frame, arenas)?;
            row_index += 1;
            self.children(each, programs, Place { this, ..at }, &mut open)?;
        }
        Continue(())
    }

    /// Adds what the paths find in an item to a list, the last one first.
    fn children<'a>(
        &mut self,
        each: &Each,
        programs: &[Program],
        at: Place<'a>,
        open: &mut List<'a, Item<'a>>,
    ) -> ControlFlow<()>
    where
        'r: 'a,
    {
        let first = open.len();
        let scope = self.scope(at);
        for program in programs {
            let mut is_full = false;
            let done = program.run(&scope, at.this, &mut |item| match open.push(item) {
                Some(()) => Continue(()),
                None => {
                    is_full = true;
                    Break(())
                }
            });
            if is_full {
                return self.fail(Problem::TooMuch, &each.element);
            }
            self.ended(&scope, done, &each.element)?;
        }
        open.reverse_from(first);
        Continue(())
    }

    /// The row of nulls of a `forEachOrNull`: the other cells of its columns are never made.
    fn nulls<'a>(
        &mut self,
        outputs: &'a [Output],
        rest: &'a Todo<'a>,
        outer: Option<&'a Frame<'a>>,
        arenas: &mut [Arena],
    ) -> ControlFlow<()>
    where
        'r: 'a,
    {
        let Some((arena, inner)) = arenas.split_first_mut() else { return Continue(()) };
        arena.reset();
        let at = Place { this: NOTHING, row_index: 0, arena };
        let cells = self.cells(outputs, at)?;
        let frame = Frame { outputs, cells, outer };
        self.go_on(Some(rest), Some(&frame), inner)
    }

    /// Puts the cells of all frames in the order of the columns, and passes the row.
    fn complete(&mut self, frame: Option<&Frame<'_>>, arenas: &mut [Arena]) -> ControlFlow<()> {
        let width = self.view.columns.len();
        let done = match frame {
            // A node that has all columns has them in their order.
            Some(Frame { cells, outer: None, .. }) if cells.len() == width => self.rows.row(&self.resource, cells),
            _ => {
                let Some((arena, _)) = arenas.split_first_mut() else { return Continue(()) };
                arena.reset();
                let Some(cells) = arena.slice(width, Cell::Null) else { return self.fail(Problem::TooMuch, "") };
                let mut next = frame;
                while let Some(frame) = next {
                    for (output, cell) in frame.outputs.iter().zip(frame.cells) {
                        cells[output.column] = *cell;
                    }
                    next = frame.outer;
                }
                self.rows.row(&self.resource, cells)
            }
        };
        self.stopped |= done.is_break();
        done
    }

    /// The cells of a node: first those that are found together, then the others.
    fn found<'a>(&mut self, node: &Node, at: Place<'a>) -> ControlFlow<(), &'a [Cell<'a>]>
    where
        'r: 'a,
    {
        let object = at.this.object().filter(|_| !node.steps.is_empty());
        let Some(object) = object else { return self.cells(&node.outputs, at) };
        let Some(cells) = at.arena.slice(node.outputs.len(), Cell::Null) else { return self.too_much("") };
        (self.interrupt)();
        node.steps.fill(object, self.bases, cells);
        let mut scope = None;
        for (output, cell) in node.outputs.iter().zip(&mut *cells).filter(|(output, _)| !output.is_found_with_others) {
            *cell = if output.is_id {
                Cell::One(Item { value: Value::Text(self.resource.id), type_id: TypeId::ID })
            } else {
                self.cell(output, at, scope.get_or_insert_with(|| self.scope(at)))?
            };
        }
        Continue(cells)
    }

    fn cells<'a>(&mut self, outputs: &[Output], at: Place<'a>) -> ControlFlow<(), &'a [Cell<'a>]>
    where
        'r: 'a,
    {
        let Some(cells) = at.arena.slice(outputs.len(), Cell::Null) else { return self.too_much("") };
        let scope = self.scope(at);
        for (output, cell) in outputs.iter().zip(&mut *cells) {
            *cell = self.cell(output, at, &scope)?;
        }
        Continue(cells)
    }

    fn cell<'a>(&mut self, output: &Output, at: Place<'a>, scope: &Scope<'_, 'a>) -> ControlFlow<(), Cell<'a>> {
        (self.interrupt)();
        let column = &self.view.columns[output.column];
        if column.collection {
            let mut items = List::new(at.arena);
            let mut is_full = false;
            let done = output.program.run(scope, at.this, &mut |item| match items.push(item) {
                Some(()) => Continue(()),
                None => {
                    is_full = true;
                    Break(())
                }
            });
            if is_full {
                return self.too_much(&output.element);
            }
            self.ended(scope, done, &output.element)?;
            return Continue(Cell::Many(items.into_items()));
        }
        let (mut cell, mut has_several) = (Cell::Null, false);
        let done = output.program.run(scope, at.this, &mut |item| {
            has_several = !matches!(cell, Cell::Null);
            if has_several {
                return Break(());
            }
            cell = Cell::One(item);
            Continue(())
        });
        if has_several {
            let column = column.name.clone();
            self.error = Some(RowError { problem: Problem::SeveralValues { column }, element: output.element.clone() });
            return Break(());
        }
        self.ended(scope, done, &output.element)?;
        Continue(cell)
    }

    fn holds(&mut self, condition: &Where, at: Place<'_>) -> ControlFlow<(), bool> {
        let scope = self.scope(at);
        let (mut found, mut is_boolean) = (None, true);
        let done = condition.program.run(&scope, at.this, &mut |item| {
            is_boolean = found.is_none() && item.boolean().is_some();
            found = item.boolean();
            if is_boolean { Continue(()) } else { Break(()) }
        });
        if !is_boolean {
            self.error = Some(RowError { problem: Problem::NotBoolean, element: condition.element.clone() });
            return Break(());
        }
        self.ended(&scope, done, &condition.element)?;
        Continue(found == Some(true))
    }

    fn scope<'a>(&self, at: Place<'a>) -> Scope<'a, 'a>
    where
        'r: 'a,
    {
        let constants = self.view.constants.all();
        let (row_index, interrupt) = (at.row_index, self.interrupt);
        let within = Within { constants, arena: at.arena, context: at.this, row_index, interrupt };
        Scope::within(self.resource, self.bases, within)
    }

    /// Whether a program ended as it should, or ended the view.
    fn ended(&mut self, scope: &Scope<'_, '_>, done: ControlFlow<()>, element: &str) -> ControlFlow<()> {
        if self.stopped || self.error.is_some() {
            return Break(());
        }
        if scope.is_exhausted() {
            return self.fail(Problem::TooMuch, element);
        }
        debug_assert!(done.is_continue());
        Continue(())
    }

    fn fail(&mut self, problem: Problem, element: &str) -> ControlFlow<()> {
        self.error = Some(RowError { problem, element: element.to_owned() });
        Break(())
    }

    fn too_much<T>(&mut self, element: &str) -> ControlFlow<(), T> {
        self.error = Some(RowError { problem: Problem::TooMuch, element: element.to_owned() });
        Break(())
    }

    fn tick(&mut self) -> ControlFlow<()> {
        self.items += 1;
        if self.items < TICK {
            return Continue(());
        }
        self.items = 0;
        (self.interrupt)();
        let done = self.rows.tick();
        self.stopped |= done.is_break();
        done
    }
}
