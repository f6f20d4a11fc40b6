// What scrolls sideways can be reached by the keyboard, and figures are as dark as the page.

const reach = () => {
    for (const box of document.querySelectorAll('pre, .table-wrapper, div.math')) {
        if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
        else box.removeAttribute('tabindex');
    }
};
const shade = () => {
    const {theme} = document.body.dataset; // light, dark, or auto, which is what the browser prefers
    for (const figure of document.querySelectorAll('fanfold-figure')) {
        figure.setAttribute('look', theme ?? 'auto');
        if (figure.redraws) figure.set({});
    }
};
reach();
shade();
addEventListener('resize', reach);
new MutationObserver(shade).observe(document.body, {attributeFilter: ['data-theme']});
