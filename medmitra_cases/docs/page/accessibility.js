// Swagger UI with names for screen readers, and a focus that is never lost. A plugin replaces or wraps components of
// Swagger UI by their names: https://swagger.io/docs/open-source-tools/swagger-ui/customization/plug-points/
const Accessibility = ({ React }) => {
  const { createElement, useEffect, useId, useRef, useState } = React;

  // Swagger UI names a field only by its placeholder, and a list of values not at all.
  const namedField = (Field) => (props) => {
    const box = useRef();
    const id = useId();
    useEffect(() => {
      const description = box.current.closest("tr").querySelector(".renderedMarkdown");
      description.id = id;
      // A parameter that can be repeated has none, or a field for each value.
      for (const field of box.current.querySelectorAll("input, select")) {
        field.ariaLabel = props.description; // the name of the parameter
        field.ariaRequired = props.required;
        field.ariaInvalid = props.errors?.size > 0;
        // The title has the mistake. Screen readers read it only if there is no other description.
        if (field.title) field.removeAttribute("aria-describedby");
        else field.setAttribute("aria-describedby", id);
      }
    });
    // The name of the group tells the buttons of one such parameter from those of another.
    const group = props.schema.get("type") === "array" && { role: "group", "aria-label": props.description };
    return createElement("div", { ref: box, ...group }, createElement(Field, props));
  };

  // These labels differ from the visible text: a user who says "Authorize" would press nothing.
  const visiblyNamed = (Control) => ({ "aria-label": _, ...props }) => createElement(Control, props);

  // A disabled button loses the focus: Swagger UI disables Execute until the response arrives.
  const alwaysEnabled = (Button) => (props) => createElement(Button, { ...props, disabled: false });

  // showModal() keeps the focus inside and the page behind it out of reach; Swagger UI closes it on Escape.
  const modalDialog = (Popup, { authActions }) => (props) => {
    const dialog = useRef();
    const [opener] = useState(() => document.activeElement);
    useEffect(() => {
      dialog.current.showModal();
      return () => opener.focus();
    }, []);
    // Also after "Authorize" and "Logout", which replace the focused button.
    useEffect(() => {
      const form = dialog.current.querySelector(".auth-container");
      if (!form.matches(":focus-within")) form.querySelector("input, button").focus();
    });
    return createElement(
      "dialog",
      {
        ref: dialog,
        role: "dialog", // these two for screen readers that do not know showModal()
        "aria-modal": true,
        "aria-label": "Available authorizations",
        onClose: () => authActions.showDefinitions(false), // closed by the browser, such as by Android's back
      },
      createElement(Popup, props),
    );
  };

  // Each new response comes into sight, whether the page or the column is scrolled, and is announced.
  const shownResponse = (Response) => (props) => {
    const box = useRef();
    useEffect(() => {
      box.current.querySelector(".live-responses-table").previousSibling.scrollIntoView({ block: "nearest" });
      announce(`Response ${props.response.get("status") ?? "missing"}`);
    }, [props.response]);
    return createElement("div", { ref: box }, createElement(Response, props));
  };

  // The keyboard can scroll a long response only if it can focus it. The examples do not scroll.
  const FocusableText = ({ className = "", children }) => {
    const tabIndex = className.includes("example") ? undefined : 0;
    return createElement("pre", { className: `microlight ${className}`, tabIndex }, children);
  };

  return {
    components: {
      ParameterIncludeEmpty: () => null, // "Send empty value": an empty value has the same effect as none
      PlainTextViewer: FocusableText,
    },
    wrapComponents: {
      Button: visiblyNamed,
      Input: visiblyNamed,
      JsonSchemaForm: namedField,
      authorizationPopup: modalDialog,
      execute: alwaysEnabled,
      liveResponse: shownResponse,
    },
  };
};

// Screen readers read a text that is put into this element, without moving the focus.
const announce = (text) => {
  document.getElementById("status").textContent = text;
};

// While the event is on its way down, because "Clear" removes itself.
const handleClick = ({ target }) => {
  const operation = target.closest(".opblock");
  if (target.closest(".execute")) {
    announce("Sending the request");
    // If a value is invalid, Swagger UI sends no request and only colours the field, within 100 ms.
    setTimeout(() => {
      const invalid = operation.querySelector(":is(input, select).invalid");
      if (!invalid) return;
      announce("");
      invalid.focus();
    }, 100);
  }
  if (target.closest(".btn-clear")) operation.querySelector(".execute").focus();
};
document.addEventListener("click", handleClick, { capture: true });
