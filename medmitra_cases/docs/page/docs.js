// Shows openapi.json with the endpoint expanded and its form enabled.
const dark = matchMedia("(prefers-color-scheme: dark)");
const applyColorScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyColorScheme);
applyColorScheme();

// The operation that was executed last. If a value is invalid, Swagger UI sends no request and only colours the field,
// so the page focuses that field.
let executed;
document.addEventListener("click", ({ target }) => {
  if (!target.closest(".execute")) return;
  executed = target.closest(".opblock");
  setTimeout(() => executed.querySelector(":is(input, select).invalid")?.focus(), 100);
});

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  validatorUrl: null, // do not send the document to the validator of swagger.io
  syntaxHighlight: false, // it creates an element for each word: 5,000 cases froze the page for 15 s
  tryItOutEnabled: true,
  defaultModelsExpandDepth: -1, // the responses already show the models
  onComplete: () => ui.layoutActions.show(["operations", "Cases", "get_all_cases"], true),
  responseInterceptor: (response) => {
    // On a narrow screen the response is below the parameters, so scroll to it.
    if (!matchMedia("(min-width: 1000px)").matches) {
      setTimeout(() => executed?.querySelector(".live-responses-table")?.scrollIntoView());
    }
    return response;
  },
});
