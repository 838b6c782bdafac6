// Pages of the built site in a browser; faults as JSON lines on the standard output.
//
//   node pages.mjs SITE MODULES CHROMIUM WORKERS JOB
//
// JOB is JSON: `pages` to open, those of them to look at `fully`, those measured on `phones` as well, and whether to
// try what a reader `clicks`.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { readFile } from 'node:fs/promises'
import { extname, join, normalize } from 'node:path'

const [site, modules, executablePath, workers, job] = process.argv.slice(2)
const { pages, fully, phones, clicks } = JSON.parse(job)
const require = createRequire(join(modules, 'node_modules', 'x.js'))
const { chromium } = require('playwright-core')
const AXE = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8')
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.json': 'application/json',
}
const WIDE = { width: 1280, height: 900 }
const NARROW = { width: 390, height: 844 }
const APART = ['search.html', 'genindex.html'] // Pages outside the navigation
const SHOWN = 120 // Characters of an element in a message
const LONGEST = 300 // Characters of an error in a message
const SEARCH = 60_000 // Milliseconds that a search may take; results come one by one
const FEW = 5 // Results of a search that finds too little

const server = createServer(async (request, response) => {
  if (request.url === '/favicon.ico') return response.writeHead(204).end() // Browsers ask for it unbidden
  try {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname))
    const body = await readFile(join(site, path))
    const type = TYPES[extname(path)] ?? 'application/octet-stream'
    response.writeHead(200, { 'content-type': type, 'cache-control': 'max-age=3600' }).end(body)
  } catch {
    response.writeHead(404).end()
  }
})
await new Promise((done) => server.listen(0, '127.0.0.1', done))
const home = `http://127.0.0.1:${server.address().port}/`
const args = ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']
const browser = await chromium.launch({ executablePath, args })

const fault = (page, what) => console.log(JSON.stringify({ page, what }))
const isOurs = (url) => url.startsWith(home) || /^(data|blob):/.test(url)

// A page whose console errors, failed requests and requests to other hosts are faults of `page.at`
async function open() {
  const context = await browser.newContext({ viewport: WIDE, colorScheme: 'light', reducedMotion: 'reduce' })
  const page = await context.newPage()
  page.at = ''
  page.on('console', (message) => {
    if (message.type() === 'error') fault(page.at, `console: ${message.text()}`)
  })
  page.on('pageerror', (error) => fault(page.at, `error: ${error.message}`))
  page.on('response', (response) => {
    if (response.status() >= 400) fault(page.at, `${response.status()} for ${response.url().replace(home, '')}`)
  })
  page.on('request', (request) => {
    if (!isOurs(request.url())) fault(page.at, `request to ${request.url()}`)
  })
  return page
}

// Formulas that are still to be set
const settled = (page) =>
  page.evaluate(async () => {
    if (window.MathJax?.startup) await window.MathJax.startup.promise
  })

const theme = (page, name) =>
  page.evaluate((name) => {
    document.body.dataset.theme = name
  }, name)

// What the page itself shows wrong at the present width. On a phone the theme lets the whole content scroll sideways, so
// the window alone does not tell
const looks = (page) =>
  page.evaluate((shown) => {
    const wrong = []
    const content = document.querySelector('.content')
    const wide = Math.max(document.documentElement.scrollWidth, content?.scrollWidth ?? 0)
    if (wide > innerWidth) {
      const scrolls = (element) => element !== content && getComputedStyle(element).overflowX !== 'visible'
      const isInBox = (element) => {
        for (let outer = element.parentElement; outer; outer = outer.parentElement) if (scrolls(outer)) return true
        return false
      }
      const sticksOut = (element) => element.getBoundingClientRect().right > innerWidth + 1 && !isInBox(element)
      const who = [...document.querySelectorAll('main *, article *')].filter(sticksOut).slice(0, 3)
      const text = who.map((element) => element.outerHTML.slice(0, shown)).join(' … ')
      wrong.push(`${wide} pixels wide in a window of ${innerWidth}: ${text}`)
    }
    for (const image of document.images) {
      const source = image.getAttribute('src')
      if (image.loading !== 'lazy' && image.naturalWidth === 0) wrong.push(`broken picture ${source}`)
      if (!image.hasAttribute('alt')) wrong.push(`no alternative text: ${source}`)
    }
    for (const element of document.querySelectorAll('mjx-merror, [data-mjx-error]')) {
      wrong.push(`formula: ${element.textContent.slice(0, shown)}`)
    }
    return wrong
  }, SHOWN)

// Mark cells of tables and entries of the navigation that look like an earlier one, and make plain text of such letters
// of code, so that each look is measured once; a long listing has thousands
const once = (page) =>
  page.evaluate(() => {
    const seen = new Set()
    for (const element of document.querySelectorAll('pre span, td, th, .sidebar-tree li')) {
      const { color, backgroundColor, fontSize, fontWeight } = getComputedStyle(element)
      const { tagName, className, parentElement } = element
      const look = [tagName, className, parentElement.className, color, backgroundColor, fontSize, fontWeight]
      const key = look.join('|')
      const isSeen = seen.has(key) && !element.querySelector('a, img, input')
      seen.add(key)
      if (isSeen && element.closest('pre')) element.replaceWith(...element.childNodes)
      else element.toggleAttribute('data-seen', isSeen)
    }
  })

// Violations that axe calls serious or critical; `rules` narrows it to some
const axe = (page, rules) => {
  const apart = phones.includes(page.at) ? [] : [['.sidebar-tree']] // The navigation is the same on every page
  const chosen = rules
    ? { runOnly: { type: 'rule', values: rules } }
    : { rules: { 'heading-order': { enabled: true } } }
  return page.evaluate(
    async ([chosen, apart]) => {
      const context = { exclude: [['mjx-container'], ['[data-seen]'], ...apart] }
      const { violations } = await window.axe.run(context, { resultTypes: ['violations'], ...chosen })
      const isGrave = ({ id, impact }) => id === 'heading-order' || ['serious', 'critical'].includes(impact)
      return violations.filter(isGrave).map(({ id, nodes }) => {
        const [first] = nodes
        const told = `${first.html.slice(0, 160)} ${first.any[0]?.message ?? ''}`
        return `axe ${id}: ${nodes.length} times, first ${told}`
      })
    },
    [chosen, apart],
  )
}

// What costs little: errors and requests while the page comes, pictures, formulas, and its width in both windows
async function glance(page, tell) {
  tell('1280 light', await looks(page))
  await page.setViewportSize(NARROW)
  tell('390 light', await looks(page))
  await page.setViewportSize(WIDE)
}

// The same, and what axe says, in both windows and themes; colours are the same at both widths, so a phone's are
// measured on few pages
async function look(page, tell) {
  const isPhone = phones.includes(page.at)
  await page.evaluate(AXE)
  await theme(page, 'light')
  await once(page)
  tell('1280 light', [...(await looks(page)), ...(await axe(page))])
  await theme(page, 'dark')
  tell('1280 dark', await axe(page, ['color-contrast']))
  await page.setViewportSize(NARROW)
  tell('390 dark', await looks(page))
  if (isPhone) tell('390 dark', await axe(page, ['color-contrast']))
  await theme(page, 'light')
  tell('390 light', [...(await looks(page)), ...(await axe(page, isPhone ? null : ['scrollable-region-focusable']))])
  await page.setViewportSize(WIDE)
}

// Go to a page by the entry of the navigation where there is one, else by address
async function visit(page, file) {
  page.at = file
  const clicked = await page.evaluate((target) => {
    const links = [...document.querySelectorAll('.sidebar-tree a')]
    const link = links.find((a) => a.href.split('#')[0] === target)
    link?.click()
    return Boolean(link)
  }, home + file)
  if (!clicked && !APART.includes(file)) fault(file, 'no entry of the navigation opens it')
  if (clicked) await page.waitForURL((url) => url.href.split('#')[0] === home + file)
  else await page.goto(home + file)
  await page.waitForLoadState('load')
  await settled(page)
}

// Visit the pages that nobody has taken yet
async function work(queue) {
  const page = await open()
  await page.goto(home + 'index.html')
  for (let file = queue.shift(); file; file = queue.shift()) {
    const tell = (state, list) => list.forEach((what) => fault(file, `${state}: ${what}`))
    try {
      await visit(page, file)
      await (fully.includes(file) ? look : glance)(page, tell)
    } catch (error) {
      fault(file, `${error.name}: ${error.message.slice(0, LONGEST)}`)
    }
  }
  await page.context().close()
}

const expect = (isSo, what) => {
  if (!isSo) fault('clicks', what)
}
const heading = (page) => page.locator('h1').first().innerText()

// The links to the previous and the next page
async function turn(page) {
  await page.goto(home + 'rl/advantages.html')
  const first = await heading(page)
  await page.goto(home + 'rl/dividing_by_sigma.html')
  const second = await heading(page)
  await page.locator('a.prev-page').click()
  await page.waitForURL(/advantages/)
  expect((await heading(page)) === first, 'the link to the previous page')
  await page.locator('a.next-page').click()
  await page.waitForURL(/dividing_by_sigma/)
  expect((await heading(page)) === second, 'the link to the next page')
}

// An entry of the navigation that opens, and the entry of the page it leads to, which is in sight there
async function unfold(page) {
  await page.goto(home + 'index.html')
  const room = page.locator('.sidebar-tree li.has-children', { has: page.locator('> a[href="rl/index.html"]') })
  const entry = room.locator('a[href="rl/testbed.html"]')
  expect(!(await entry.isVisible()), 'a room is open before it is clicked')
  await room.locator('> label').click()
  await entry.click()
  await page.waitForURL(/testbed/)
  const isInSight = await page.evaluate(() => {
    const entry = document.querySelector('.sidebar-tree .current-page > .reference').getBoundingClientRect()
    return 0 <= entry.top && entry.bottom <= innerHeight
  })
  expect(isInSight, 'the entry of the present page is out of sight')
}

// The switch of the theme, which has three states and two looks
async function darken(page) {
  const colours = new Set()
  for (let state = 0; state < 3; state++) {
    colours.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor))
    await page.locator('button.theme-toggle:visible').first().click()
  }
  expect(colours.size === 2, `the theme switch: ${[...colours]}`)
}

async function search(page) {
  await page.locator('.sidebar-search').fill('HARPO')
  await page.keyboard.press('Enter')
  const isEnough = (few) => document.querySelectorAll('ul.search li a').length > few
  const found = page.waitForFunction(isEnough, FEW, { timeout: SEARCH })
  expect(await found.then(() => true, () => false), 'a search for HARPO finds little')
}

// The drawer of a phone
async function draw(page) {
  await page.setViewportSize(NARROW)
  await page.goto(home + 'index.html')
  await page.locator('label[for="__navigation"]:visible').first().click()
  await page.locator('.sidebar-tree a', { hasText: /^Glossary$/ }).click()
  await page.waitForURL(/glossary/)
}

// What a reader clicks
async function click() {
  const page = await open()
  page.at = 'clicks'
  try {
    for (const one of [turn, unfold, darken, search, draw]) await one(page)
  } catch (error) {
    fault('clicks', error.message.slice(0, LONGEST))
  }
  await page.context().close()
}

const start = Date.now()
const queue = [...pages]
const hands = Array.from({ length: Number(workers) }, () => work(queue))
await Promise.all(clicks ? [...hands, click()] : hands)
const seconds = ((Date.now() - start) / 1000).toFixed(0)
console.error(`${pages.length} pages, ${fully.length} of them fully, in ${seconds} s`)
await browser.close()
server.close()
