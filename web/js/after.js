// A function of an object, followed by another.

export function after(object, name, then) {
  const first = object[name];
  object[name] = function (...args) {
    const result = first?.apply(this, args);
    then();
    return result;
  };
}
