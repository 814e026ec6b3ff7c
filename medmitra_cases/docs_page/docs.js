// Shows openapi.json, which lies beside this page, with the endpoint open and ready to be tried out.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  validatorUrl: null, // nobody else is to look at the document
  tryItOutEnabled: true,
  defaultModelsExpandDepth: -1, // the answers show the models
  onComplete: () => ui.layoutActions.show(["operations", "Cases", "get_all_cases"], true),
  responseInterceptor: (response) => {
    // On a narrow screen the answer is below the parameters, and not beside them.
    if (!matchMedia("(min-width: 1000px)").matches) {
      setTimeout(() => document.querySelector(".live-responses-table")?.scrollIntoView());
    }
    return response;
  },
});
