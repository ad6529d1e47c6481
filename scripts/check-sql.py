"""pgspot on the scripts that are named. Functions with an SQL-standard body (BEGIN ATOMIC) end pgspot 0.9.4, which looks for
a body in a string. Theirs is bound when they are made: it is read here as what it is, part of the script, under the
search_path that the script has set by then."""

from pgspot import cli, visitors
from pgspot.formatters import format_function

in_a_string = visitors.SQLVisitor.visit_CreateFunctionStmt


def visit_function(self, ancestors, node):
    if node.sql_body is None:
        return in_a_string(self, ancestors, node)
    if node.replace:
        self.state.warn("PS002", format_function(node))
    if any(option.defname == "security" and option.arg.boolval for option in node.options):
        self.state.error("PS003", format_function(node))
    return None  # goes on to the body


visitors.SQLVisitor.visit_CreateFunctionStmt = visit_function
cli.run()
