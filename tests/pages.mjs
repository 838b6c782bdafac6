// Every page of the built site in a browser: node pages.mjs SITE MODULES CHROMIUM WORKERS, faults as JSON lines on the standard output.
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { readFile, readdir } from 'node:fs/promises'
import { extname, join, normalize } from 'node:path'

const [site, modules, executablePath, workers] = process.argv.slice(2)
const require = createRequire(join(modules, 'node_modules', 'x.js'))
const { chromium } = require('playwright-core')
const AXE = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8')
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.png': 'image/png', '.json': 'application/json' }
const WIDE = { width: 1280, height: 900 }, NARROW = { width: 390, height: 844 }

const PHONE = /^(index|search|rl.harpo|studies.method_results|api.rl.harpo)\.html$/   // Colours are the same at both widths, so a phone's are measured on these alone

const APART = ['search.html', 'genindex.html']   // Pages outside the navigation
const server = createServer(async (request, response) => {
  try {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname))
    const body = await readFile(join(site, path))
    response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' }).end(body)
  } catch { response.writeHead(404).end() }
})
await new Promise(done => server.listen(0, '127.0.0.1', done))
const home = `http://127.0.0.1:${server.address().port}/`
let where = '', found = 0
const fault = (page, what) => { found++; console.log(JSON.stringify({ page, what })) }

const wanted = process.argv.slice(6)
const files = (await readdir(site, { recursive: true })).filter(f => f.endsWith('.html') && (!wanted.length || wanted.includes(f))).sort()
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })

// A page whose console errors, failed requests and requests to other hosts are faults of `page.at`
async function open(viewport) {
  const context = await browser.newContext({ viewport, colorScheme: 'light', reducedMotion: 'reduce' })
  const page = await context.newPage()
  page.at = ''
  page.on('console', m => { if (m.type() === 'error') fault(page.at, `console: ${m.text()}`) })
  page.on('pageerror', e => fault(page.at, `error: ${e.message}`))
  page.on('response', r => { if (r.status() >= 400) fault(page.at, `${r.status()} for ${r.url().replace(home, '')}`) })
  await page.route('**/*', route => {
    const url = route.request().url()
    if (url.startsWith(home) || /^(data|blob):/.test(url)) return route.continue()
    fault(page.at, `request to ${url}`)
    return route.abort()
  })
  return page
}

const settled = page => page.evaluate(async () => { if (window.MathJax?.startup) await window.MathJax.startup.promise })
const theme = (page, name) => page.evaluate(name => { document.body.dataset.theme = name }, name)

// What the page itself shows wrong at the present width
const looks = page => page.evaluate(() => {
  const wrong = []
  const wide = document.documentElement.scrollWidth
  if (wide > innerWidth) {
    const inBox = e => { for (let p = e.parentElement; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== 'visible') return true }
    const who = [...document.querySelectorAll('main *, article *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !inBox(e)).slice(0, 3)
    wrong.push(`${wide} pixels wide in a window of ${innerWidth}: ${who.map(e => e.outerHTML.slice(0, 120)).join(' … ')}`)
  }
  for (const img of document.images) {
    if (img.loading !== 'lazy' && img.naturalWidth === 0) wrong.push(`broken picture ${img.getAttribute('src')}`)
    if (!img.hasAttribute('alt')) wrong.push(`no alternative text: ${img.getAttribute('src')}`)
  }
  for (const e of document.querySelectorAll('mjx-merror, [data-mjx-error]')) wrong.push(`formula: ${e.textContent.slice(0, 80)}`)
  return wrong
})

// Mark letters of code and cells of tables that look like an earlier one, so that each look is measured once
const once = page => page.evaluate(() => {
  const seen = new Set()
  for (const e of document.querySelectorAll('pre span, td, th, .sidebar-tree li')) {
    const look = getComputedStyle(e)
    const key = [e.tagName, e.className, e.parentElement.className, look.color, look.backgroundColor, look.fontSize, look.fontWeight].join('|')
    e.toggleAttribute('data-seen', seen.has(key) && !e.querySelector('a, img, input'))
    seen.add(key)
  }
})

// Violations that axe calls serious or critical; `rules` narrows it to some
const axe = (page, rules) => page.evaluate(async ([rules, apart]) => {
  const options = { resultTypes: ['violations'], ...(rules ? { runOnly: { type: 'rule', values: rules } } : { rules: { 'heading-order': { enabled: true } } }) }
  const { violations } = await window.axe.run({ exclude: [['mjx-container'], ['[data-seen]'], ...apart] }, options)
  return violations.filter(v => ['serious', 'critical'].includes(v.impact) || v.id === 'heading-order')
    .map(v => `axe ${v.id}: ${v.nodes.length} times, first ${v.nodes[0].html.slice(0, 160)} ${v.nodes[0].any[0]?.message ?? ''}`)
}, [rules, PHONE.test(page.at) ? [] : [['.sidebar-tree']]])   // The navigation is the same on every page

async function check(page, file) {
  const tell = (state, list) => list.forEach(what => fault(file, `${state}: ${what}`))
  await settled(page)
  await page.evaluate(AXE)
  await theme(page, 'light')
  await once(page)
  tell('1280 light', [...await looks(page), ...await axe(page)])
  await theme(page, 'dark')
  tell('1280 dark', await axe(page, ['color-contrast']))
  await page.setViewportSize(NARROW)
  tell('390 dark', [...await looks(page), ...(PHONE.test(file) ? await axe(page, ['color-contrast']) : [])])
  await theme(page, 'light')
  tell('390 light', [...await looks(page), ...await axe(page, PHONE.test(file) ? null : ['scrollable-region-focusable'])])
  await page.setViewportSize(WIDE)
}

// Visit the pages that nobody has taken yet: by the entry of the navigation where there is one, else by address
async function work(queue) {
  const page = await open(WIDE)
  await page.goto(home + 'index.html')
  for (let file; (file = queue.shift());) {
    page.at = file
    try {
      const clicked = await page.evaluate(target => {
        const link = [...document.querySelectorAll('.sidebar-tree a')].find(a => a.href.split('#')[0] === target)
        link?.click()
        return Boolean(link)
      }, home + file)
      if (!clicked && !APART.includes(file)) fault(file, 'no entry of the navigation opens it')
      if (clicked) await page.waitForURL(u => u.href.split('#')[0] === home + file)
      else await page.goto(home + file)
      await page.waitForLoadState('load')
      await check(page, file)
    } catch (error) { fault(file, `${error.name}: ${error.message.slice(0, 300)}`) }
  }
  await page.context().close()
}

// What a reader clicks: theme, previous and next, search, and the drawer of a phone
async function click() {
  const page = await open(WIDE)
  page.at = 'clicks'
  const text = file => page.goto(home + file).then(() => page.locator('h1').first().innerText())
  const expect = (true_, what) => { if (!true_) fault('clicks', what) }
  const [first, second] = [await text('rl/advantages.html'), await text('rl/dividing_by_sigma.html')]
  await page.locator('a.prev-page').click()
  await page.waitForURL(/advantages/)
  expect(await page.locator('h1').first().innerText() === first, 'the link to the previous page')
  await page.locator('a.next-page').click()
  await page.waitForURL(/dividing_by_sigma/)
  expect(await page.locator('h1').first().innerText() === second, 'the link to the next page')
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const colours = new Set()
  for (let i = 0; i < 3; i++) { colours.add(await colour()); await page.locator('button.theme-toggle:visible').first().click() }
  expect(colours.size === 2, `the theme switch: ${[...colours]}`)
  await page.locator('.sidebar-search').fill('HARPO')
  await page.keyboard.press('Enter')
  const found = page.waitForFunction(() => document.querySelectorAll('ul.search li a').length > 5, null, { timeout: 60000 })   // They come one by one
  expect(await found.then(() => true, () => false), 'a search for HARPO finds little')
  await page.setViewportSize(NARROW)
  await text('index.html')
  await page.locator('label[for="__navigation"]:visible').first().click()
  await page.locator('.sidebar-tree a', { hasText: /^Glossary$/ }).click()
  await page.waitForURL(/glossary/)
  await page.context().close()
}

const START = Date.now()
const queue = [...files]
await Promise.all([...Array.from({ length: Number(workers) }, () => work(queue)), click().catch(error => fault('clicks', error.message.slice(0, 300)))])
console.error(`${files.length} pages in ${((Date.now() - START) / 1000).toFixed(0)} s`)
await browser.close()
server.close()
