// What `make lint` asks of the page's JavaScript and its tests.

import js from "@eslint/js";
import globals from "globals";

// Properties of `window` that read like names of our own: without these lines, a forgotten declaration is not noticed.
const OF_WINDOW = ["close", "event", "find", "length", "name", "open", "origin", "parent", "self", "status", "top"];

export default [
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "prefer-const": "error",
      "no-var": "error",
      // `== null` asks for null and undefined at once.
      eqeqeq: ["error", "always", { null: "ignore" }],
      "no-unused-vars": "error",
    },
  },
  {
    files: ["web/**/*.js"],
    // LiteGraph is ComfyUI's own global.
    languageOptions: { globals: { ...globals.browser, LiteGraph: "readonly" } },
    rules: { "no-restricted-globals": ["error", ...OF_WINDOW] },
  },
  {
    files: ["tests/web/**/*.mjs"],
    languageOptions: { globals: globals.node },
  },
];
