// Shows openapi.json with the endpoint expanded and its form enabled.
const dark = matchMedia("(prefers-color-scheme: dark)");
const applyColorScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyColorScheme);
applyColorScheme();

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  plugins: [Accessibility],
  validatorUrl: null, // do not send the document to the validator of swagger.io
  syntaxHighlight: false, // it creates an element for each word: 5,000 cases froze the page for 15 s
  tryItOutEnabled: true,
  defaultModelsExpandDepth: -1, // the responses already show the models
  onComplete: () => ui.layoutActions.show(["operations", "Cases", "get_all_cases"], true),
});
