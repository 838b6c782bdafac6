// Scroll the navigation to the entry of the present page, where a long list would hide it; at once, not smoothly
addEventListener('DOMContentLoaded', () => {
  const box = document.querySelector('.sidebar-scroll')
  const entry = box?.querySelector('.current-page > .reference')
  if (!entry) return
  const depth = entry.getBoundingClientRect().top - box.getBoundingClientRect().top
  const middle = box.clientHeight / 2
  if (depth > middle) box.scrollTo({ top: depth - middle, behavior: 'instant' })
})
