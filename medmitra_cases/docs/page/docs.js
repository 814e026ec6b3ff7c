// Shows openapi.json, which lies beside this page, with the endpoint open and ready to be tried out.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// The operation that was executed last. Where a value is not as it must be Swagger UI sends nothing, and says so by a
// colour alone: show where.
let executed;
document.addEventListener("click", ({ target }) => {
  if (!target.closest(".execute")) return;
  executed = target.closest(".opblock");
  setTimeout(() => executed.querySelector(":is(input, select).invalid")?.focus(), 100);
});

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  validatorUrl: null, // nobody else is to look at the document
  syntaxHighlight: false, // it makes an element of each word: 5,000 cases froze the page for a quarter of a minute
  tryItOutEnabled: true,
  defaultModelsExpandDepth: -1, // the answers show the models
  onComplete: () => ui.layoutActions.show(["operations", "Cases", "get_all_cases"], true),
  responseInterceptor: (response) => {
    // On a narrow screen the answer is below the parameters, and not beside them.
    if (!matchMedia("(min-width: 1000px)").matches) {
      setTimeout(() => executed?.querySelector(".live-responses-table")?.scrollIntoView());
    }
    return response;
  },
});
