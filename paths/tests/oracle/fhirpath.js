// Evaluates FHIRPath expressions over FHIR resources with fhirpath.js, for the test beside it.
//
//   node fhirpath.js FOLDER RELEASE
//
// FOLDER has the package fhirpath in its node_modules, RELEASE is r4 or r5. The first line of the input is a JSON array of
// {type, expression, parts}: an expression for resources of a type; parts are expressions that start at its items. The other
// lines are resources. For each of them a line is written: {answers: [[expression's number, items]…]}, without those that find
// nothing, where items are those of the expression, or a list of lists for its parts; and {failures: [[number, message]…]}.
'use strict';
const path = require('path');
const readline = require('readline');

const [folder, release] = process.argv.slice(2);
const root = path.resolve(folder, 'node_modules/fhirpath');
const fhirpath = require(root);
const model = require(path.join(root, 'fhir-context', release));
const { ResourceNode, TypeInfo } = require(path.join(root, 'src/types'));

// The resource that is evaluated, for references to what it contains.
let resource = null;

// fhirpath.js would ask a server. What HL7's expressions need of the target is its type, and that is told by the reference:
// this reads it independently of the Rust code, by the url's shape as http.html#general says.
function targetType(reference) {
  const url = reference?.reference;
  if (url === undefined) return reference?.type;
  if (url.startsWith('#')) {
    return (resource.contained ?? []).find((inner) => '#' + inner.id === url)?.resourceType;
  }
  const match = /^(?:https?:\/\/.*\/|)([A-Z][A-Za-z]+)\/[A-Za-z0-9.-]+(?:\/_history\/[A-Za-z0-9.-]+)?$/.exec(url);
  return match ? match[1] : reference.type;
}

function resolve(inputs) {
  return inputs.flatMap((node) => {
    const type = targetType(node.data ?? node);
    if (!type) return [];
    const target = ResourceNode.makeResNode(node.ctx, { resourceType: type }, null, type, null, type);
    target.typeInfo = new TypeInfo({ namespace: TypeInfo.FHIR, name: type });
    return [target];
  });
}

const options = {
  resolveInternalTypes: false,
  userInvocationTable: { resolve: { fn: resolve, arity: { 0: [] }, internalStructures: true } },
};

function items(found) {
  const values = found.map((item) => {
    const value = item instanceof ResourceNode ? item.data : item;
    // The resource itself.
    return value === resource ? { $resource: true } : value;
  });
  // A primitive that only has extensions has no value.
  return values.filter((value) => value !== null && value !== undefined);
}

// The alternatives of a union, each evaluated alone: a union would remove equal items.
function alternatives(expression) {
  const found = [''];
  let [depth, quoted] = [0, false];
  for (const c of expression) {
    if (c === "'") quoted = !quoted;
    if (!quoted && '([])'.includes(c)) depth += '(['.includes(c) ? 1 : -1;
    if (c === '|' && !quoted && depth === 0) found.push('');
    else found[found.length - 1] += c;
  }
  return found;
}

// HL7 writes `as` where several items are meant, which FHIRPath allows for ofType() only.
function ofType(expression) {
  const each = expression.replace(/ as ([A-Za-z]+)/g, '.ofType($1)').replace(/\.as\(([A-Za-z]+)\)/g, '.ofType($1)');
  // There is no type DateTime. The function hasExtension is not in fhirpath.js.
  return each.replace('(DateTime)', '(dateTime)').replace(/hasExtension\(('[^']*')\)/g, 'extension($1).exists()');
}

function one(expression) {
  const all = alternatives(ofType(expression)).map((text) => fhirpath.compile(text, model, options));
  return (of) => all.flatMap((evaluate) => items(evaluate(of, { resource: of })));
}

function compiled({ expression, parts }) {
  if (parts.length === 0) return one(expression);
  const all = parts.map((part) => {
    const of = alternatives(ofType(expression));
    return one(of.map((base) => `(${base}).select(${ofType(part)})`).join('|'));
  });
  return (of) => all.map((part) => part(of));
}

const byType = new Map();

function evaluate(line) {
  resource = JSON.parse(line);
  const answers = [];
  const failures = [];
  for (const { number, run } of byType.get(resource.resourceType) ?? []) {
    try {
      const found = run(resource);
      if (found.length > 0) answers.push([number, found]);
    } catch (error) {
      failures.push([number, String(error.message ?? error)]);
    }
  }
  return { answers, failures };
}

let started = false;
readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', (line) => {
  if (started) {
    process.stdout.write(JSON.stringify(evaluate(line)) + '\n');
    return;
  }
  started = true;
  JSON.parse(line).forEach((wanted, number) => {
    if (!byType.has(wanted.type)) byType.set(wanted.type, []);
    byType.get(wanted.type).push({ number, run: compiled(wanted) });
  });
});
