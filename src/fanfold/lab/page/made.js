// An element of the page with its properties and children.

export function made(tag, facts = {}, ...children) {
    const element = Object.assign(document.createElement(tag), facts);
    element.append(...children);
    return element;
}
