// Runs before anything is painted: the remembered colour scheme, and the language, whose words are fetched at once.
// A classic script, since modules wait for the whole document.
(function () {
  'use strict';
  var root = document.documentElement;
  function remembered(name) {
    try { return localStorage.getItem(name); } catch (_) { return null; } // Storage may be switched off.
  }
  var scheme = remembered('convoke.scheme');
  if (scheme === 'light' || scheme === 'dark') root.dataset.scheme = scheme;
  var language = remembered('convoke.language');
  if (language !== 'en' && language !== 'zh') language = /^zh\b/i.test(navigator.language || '') ? 'zh' : 'en';
  root.lang = language === 'zh' ? 'zh-CN' : 'en';
  root.dataset.language = language;
  var words = document.createElement('link');
  words.rel = 'modulepreload';
  words.href = 'assets/js/lang/' + language + '.js';
  document.head.appendChild(words);
})();
